#!/usr/bin/env python3
"""Time one sampling step of diffusers' VQDiffusionPipeline (the reference implementation).

Builds the pipeline with random weights (B: 19 layers, 16 heads x 64; S: 18 layers,
16 heads x 12; an f8 VQ-VAE, a ViT-B/32 CLIP text tower), runs the real pipeline call with
classifier-free guidance and truncation, and prints one JSON object: the seconds per step,
split into the network, truncation + scheduler, and the rest (guidance arithmetic, copies).
The minimum and the median over the timed steps are given. The first step of a call (warm-up)
and the last one (t = 0, which skips the posterior) are not counted.
The cost of a step does not depend on how many steps there are, so a few are enough.

    pip install torch==2.11.0 diffusers transformers
    python diffusers_step.py --size B --threads 2 --steps 5

diffusers only has the fully connected MLP (expansion 4), so its S differs from the
official S (3x3 convolutions, expansion 2): compare with the same fc network.
"""
import argparse
import json
import platform
import statistics
import time
from types import SimpleNamespace

import diffusers
import torch
import transformers
from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler, VQModel
from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
    LearnedClassifierFreeSamplingEmbeddings,
)
from transformers import CLIPTextConfig, CLIPTextModel

SIZES = {"B": (19, 64), "S": (18, 12)}
CODES = 2888  # 2887 codes and the mask


class FixedTokenizer:
    """Stands in for CLIPTokenizer: the text does not change the cost of a step."""

    model_max_length = 77

    def __call__(self, prompt, **_):
        rows = len(prompt) if isinstance(prompt, list) else 1
        ids = torch.zeros(rows, 77, dtype=torch.long)
        ids[:, 0], ids[:, 1:7], ids[:, 7] = 49406, 1000, 49407
        return SimpleNamespace(input_ids=ids)


def build(size, dtype, grid):
    layers, head_dim = SIZES[size]
    transformer = Transformer2DModel(
        num_attention_heads=16, attention_head_dim=head_dim, num_layers=layers,
        cross_attention_dim=512, attention_bias=True, sample_size=grid,
        num_vector_embeds=CODES, num_embeds_ada_norm=100,
        activation_fn="geglu-approximate", norm_type="ada_norm",
    )
    for p in transformer.parameters():
        if p.dim() == 2:
            torch.nn.init.normal_(p, std=0.02)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12,
        num_attention_heads=8, max_position_embeddings=77, hidden_act="quick_gelu",
    ))
    vqvae = VQModel(
        block_out_channels=(64, 128, 256, 512), layers_per_block=2, latent_channels=256,
        vq_embed_dim=128, num_vq_embeddings=CODES - 1, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
    )
    empty = LearnedClassifierFreeSamplingEmbeddings(learnable=True, hidden_size=512, length=77)
    torch.nn.init.normal_(empty.embeddings)
    pipe = VQDiffusionPipeline(
        vqvae=vqvae, text_encoder=text, tokenizer=FixedTokenizer(), transformer=transformer,
        scheduler=VQDiffusionScheduler(num_vec_classes=CODES),
        learned_classifier_free_sampling_embeddings=empty,
    )
    for module in (vqvae, text, transformer, empty):
        module.eval().to(dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def timed(function, log):
    def call(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        log.append(time.perf_counter() - start)
        return result
    return call


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--size", choices=SIZES, default="B")
    ap.add_argument("--steps", type=int, default=5, help="steps per call (>= 3), first and last not counted")
    ap.add_argument("--repeat", type=int, default=1, help="pipeline calls")
    ap.add_argument("--threads", type=int, default=0, help="0: torch's default")
    ap.add_argument("--batch", type=int, default=1, help="images per call")
    ap.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    ap.add_argument("--guidance", type=float, default=5.0)
    ap.add_argument("--truncation", type=float, default=0.86)
    ap.add_argument("--grid", type=int, default=32, help="side of the token grid")
    args = ap.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    pipe = build(args.size, getattr(torch, args.dtype), args.grid)

    network, truncation, scheduler = [], [], []
    pipe.transformer.forward = timed(pipe.transformer.forward, network)
    pipe.truncate = timed(pipe.truncate, truncation)
    pipe.scheduler.step = timed(pipe.scheduler.step, scheduler)
    total, keep = [], []
    for _ in range(args.repeat):
        stamps = []
        first = len(network)
        pipe("a photo", num_inference_steps=args.steps, guidance_scale=args.guidance,
             truncation_rate=args.truncation, num_images_per_prompt=args.batch,
             output_type="np", callback=lambda *_: stamps.append(time.perf_counter()))
        total += [b - a for a, b in zip(stamps[:-1], stamps[1:-1])]
        keep += range(first + 1, first + args.steps - 1)

    rows = [
        {"step": t, "network": network[i], "truncation": truncation[i], "scheduler": scheduler[i],
         "rest": t - network[i] - truncation[i] - scheduler[i]}
        for t, i in zip(total, keep)
    ]
    summary = {
        name: {k: round(f([r[k] for r in rows]), 5) for k in rows[0]}
        for name, f in (("min", min), ("median", statistics.median))
    }
    print(json.dumps({
        "what": "diffusers VQDiffusionPipeline, seconds per step", "size": args.size,
        "dtype": args.dtype, "threads": torch.get_num_threads(), "batch": args.batch,
        "tokens": args.grid ** 2, "guidance": args.guidance, "truncation_rate": args.truncation,
        "steps_timed": len(rows), **summary, "torch": torch.__version__,
        "diffusers": diffusers.__version__, "transformers": transformers.__version__,
        "machine": platform.machine(),
    }))


if __name__ == "__main__":
    main()
