#!/usr/bin/env python3
"""Time one training step of VQ-Diffusion written plainly in PyTorch eager mode.

The same network as `cargo bench --bench train_step` (B: 19 blocks of width 1024; S: 18 of
width 192; 16 heads, dense feed-forward parts), random weights, tokens and text features,
with the loss as the original evaluates it (log-probabilities of all K + 1 states), AdamW,
clipping and the moving average every 25 steps. bf16 is torch.autocast. Prints one JSON
object: seconds per step, best and median.

    pip install torch==2.11.0
    python train_step.py --size S --batch 2 --threads 2 --dtype f32
"""
import argparse
import contextlib
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

K, L, T, S, C, HEADS = 2887, 1024, 100, 77, 512, 16


class AdaNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.emb = nn.Embedding(T, width)
        self.linear = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, x, t):
        scale, shift = self.linear(F.silu(self.emb(t))).unsqueeze(1).chunk(2, dim=2)
        return self.norm(x) * (1 + scale) + shift


class Attention(nn.Module):
    def __init__(self, width, context):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context, width)
        self.value = nn.Linear(context, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x, context):
        def heads(y):
            return y.view(y.size(0), y.size(1), HEADS, -1).transpose(1, 2)

        q, k, v = heads(self.query(x)), heads(self.key(context)), heads(self.value(context))
        weights = F.softmax(q @ k.transpose(2, 3) / q.size(3) ** 0.5, dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln1, self.ln1_1, self.ln2 = AdaNorm(width), AdaNorm(width), nn.LayerNorm(width)
        self.attn1, self.attn2 = Attention(width, width), Attention(width, C)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, t, text):
        h = self.ln1(x, t)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.ln1_1(x, t), text)
        h = self.up(self.ln2(x))
        return x + self.down(h * torch.sigmoid(1.702 * h))


class Denoiser(nn.Module):
    def __init__(self, layers, width):
        super().__init__()
        self.emb = nn.Embedding(K + 1, width)
        self.height, self.width = nn.Embedding(32, width), nn.Embedding(32, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, K)

    def forward(self, x_t, t, text):
        place = self.height.weight.unsqueeze(1) + self.width.weight.unsqueeze(0)
        x = self.emb(x_t) + place.view(L, -1)
        for block in self.blocks:
            x = block(x, t, text)
        return self.head(self.norm(x)).transpose(1, 2)  # [B, K, L]


def schedule():
    at = torch.linspace(0.99999, 0.000009, T, dtype=torch.float64)
    ct = torch.linspace(0.000009, 0.99999, T, dtype=torch.float64)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    a = at / torch.cat([one, at[:-1]])
    c = 1 - (1 - ct) / (1 - torch.cat([zero, ct[:-1]]))
    b = (1 - a - c) / K
    at, ct = torch.cat([at, one]), torch.cat([ct, zero])
    bt = (1 - at - ct) / K
    values = (a, b, c, 1 - c, at, bt, ct, 1 - ct)
    return [v.clamp(min=1e-40).log().float() for v in values]


def at(table, t):
    return table[t].view(-1, 1, 1)


def one_hot(x):
    return F.one_hot(x, K + 1).transpose(1, 2).float().clamp(min=1e-30).log()


def forward_map(log_x, a, b, c, nc):
    codes = torch.logaddexp(log_x[:, :-1] + a, b)
    return torch.cat([codes, torch.logaddexp(log_x[:, -1:] + nc, c)], dim=1)


def q_pred(log_x, t):
    t = (t + T + 1) % (T + 1)
    return forward_map(log_x, at(AT, t), at(BT, t), at(CT, t), at(NCT, t))


def posterior(log_x_0, x_t, t):
    masked = (x_t == K).unsqueeze(1)
    log_x_t = one_hot(x_t)
    from_start = torch.where(masked, at(CT, t), q_pred(log_x_t, t)[:, :-1])
    step = forward_map(log_x_t, at(A, t), at(B_, t), at(C_, t), at(NC, t))[:, :-1]
    step = torch.where(masked, at(C_, t), step)
    tiny = torch.full_like(step[:, :1], 1e-30).log()
    step = torch.cat([step, torch.where(masked, torch.zeros_like(tiny), tiny)], dim=1)
    r = torch.cat([log_x_0[:, :-1] - from_start, tiny], dim=1)
    total = torch.logsumexp(r, dim=1, keepdim=True)
    return (q_pred(r - total, t - 1) + step + total).clamp(-70, 0)


def loss_of(logits, x_0, x_t, t):
    log_p = F.log_softmax(logits.double(), dim=1).float()
    log_p = F.pad(log_p, (0, 0, 0, 1), value=-70).clamp(-70, 0)
    log_x_0 = one_hot(x_0)
    true, model = posterior(log_x_0, x_t, t), posterior(log_p, x_t, t)
    kl = (true.exp() * (true - model)).sum((1, 2))
    nll = -(log_x_0.exp() * model).sum((1, 2))
    start = (log_x_0[:, :-1].exp() * (log_x_0[:, :-1] - log_p[:, :-1])).sum((1, 2))
    first = (t == 0).float()
    main = first * nll + (1 - first) * kl
    aux = first * nll + (1 - first) * start
    total = (main + aux * 5e-4 * (2 - t / T)) * T
    return total.sum() / (x_0.size(0) * L)


def main():
    global A, B_, C_, NC, AT, BT, CT, NCT
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=["B", "S"], default="S")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="network and loss by torch.compile")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    torch.set_default_device(device)
    A, B_, C_, NC, AT, BT, CT, NCT = schedule()
    model = Denoiser(*{"B": (19, 1024), "S": (18, 192)}[args.size])
    for p in model.parameters():
        if p.dim() == 2:
            nn.init.normal_(p, std=0.02)
    network, objective = model, loss_of
    if args.compile:
        network, objective = torch.compile(model), torch.compile(loss_of)
    ema = {name: p.detach().clone() for name, p in model.named_parameters()}
    adam = torch.optim.AdamW(model.parameters(), 3e-6, betas=(0.9, 0.96), weight_decay=0.045)
    cast = contextlib.nullcontext()
    if args.dtype == "bf16":
        cast = torch.autocast(device.type, torch.bfloat16)
    seconds = []
    for step in range(args.steps + 2):  # two warm up, and compile
        began = time.perf_counter()
        x_0 = torch.randint(K, (args.batch, L))
        t = torch.tensor([37 * (i + 1) % T for i in range(args.batch)])
        u = torch.rand(args.batch, K + 1, L)
        gumbel = -torch.log(-torch.log(u + 1e-30) + 1e-30)
        x_t = (q_pred(one_hot(x_0), t) + gumbel).argmax(1)
        text = torch.randn(args.batch, S, C) * 0.04
        with cast:
            logits = network(x_t, t, text)
        loss = objective(logits.float(), x_0, x_t, t)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adam.step()
        if (step + 1) % 25 == 0:
            for name, p in model.named_parameters():
                ema[name].mul_(0.99).add_(p.detach(), alpha=0.01)
        loss.item()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if step >= 2:
            seconds.append(time.perf_counter() - began)
    print(json.dumps({
        "what": f"PyTorch {'compiled' if args.compile else 'eager'}, seconds per training step", "size": args.size, "device": args.device,
        "dtype": args.dtype, "batch": args.batch, "threads": torch.get_num_threads(),
        "best": min(seconds), "median": statistics.median(seconds),
    }))


if __name__ == "__main__":
    main()
