"""Records logits of small denoisers with options that no released model has, in
options.safetensors, and their official configurations in options.json.

    pip install numpy safetensors
    python tests/options/generate.py

The networks are written here in float64 from their formulas: x is normed, modulated,
attended to and fed forward as arXiv 2111.14822 has it, with the options' own norms
(layer or instance), embeddings of an index (table or sinusoid), activations (GELU by the
error function or x sigmoid(1.702 x)) and feed-forward parts (dense or 3x3 convolutions).
"""

import json
import math
import pathlib

import numpy as np
from safetensors.numpy import save_file

D, HEADS, K, T, LAYERS, TIMES = 8, 2, 6, 7, 2, 2
GRID, L, B = (4, 4), 16, 3
TEXT, TEXT_WIDTH = 5, 6
CLASSES = 5

# name: network, mlp_type, activation, positions, spatial size, timestep_type, class_type
CASES = {
    "text_gelu_parameter": ("text", "fc", "GELU", "parameter", (4, 4), "adalayernorm", None),
    "text_gelu2_parameter_larger": ("text", "fc", "GELU2", "parameter", (5, 6), "adalayernorm_abs", None),
    "text_instance": ("text", "fc", "GELU", "embedding", (4, 4), "adainsnorm", None),
    "text_instance_abs_conv": ("text", "conv_mlp", "GELU", "embedding", (4, 4), "adainsnorm_abs", None),
    "class_instance": ("class", "fc", "GELU2", "embedding", (4, 4), "adalayernorm", "adainsnorm"),
    "class_instance_both_conv": ("class", "conv_mlp", "GELU", "parameter", (4, 4), "adainsnorm", "adainsnorm"),
    "class_abs": ("class", "fc", "GELU2", "embedding", (6, 5), "adalayernorm", "adalayernorm_abs"),
    "class_instance_abs": ("class", "conv_mlp", "GELU2", "embedding", (4, 4), "adalayernorm_abs", "adainsnorm_abs"),
    "plain_instance_gelu": ("plain", "fc", "GELU", "parameter", (4, 4), "adainsnorm", None),
    "plain_conv_gelu": ("plain", "conv_mlp", "GELU", "embedding", (32, 32), "adalayernorm", None),
}

NETWORKS = {
    "text": ("dalle.DALLE", "Text2ImageTransformer", "selfcross"),
    "class": ("conditional_dalle.C_DALLE", "Condition2ImageTransformer", "selfcondition"),
    "plain": ("unconditional_dalle.UC_DALLE", "UnCondition2ImageTransformer", "self"),
}


class Weights:
    """Float32 numbers by name, drawn when asked for."""

    def __init__(self, name):
        self.random = np.random.default_rng(sum(map(ord, name)))
        self.tensors = {}

    def __call__(self, name, *shape, scale=0.3, offset=0.0):
        if name not in self.tensors:
            values = offset + scale * self.random.standard_normal(shape)
            self.tensors[name] = values.astype(np.float32)
        return self.tensors[name].astype(np.float64)


def normed(x, axis):
    mean = x.mean(axis, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


def linear(w, name, x, inputs, outputs):
    return x @ w(f"{name}.weight", outputs, inputs).T + w(f"{name}.bias", outputs, scale=0.1)


def layer_norm(w, name, x):
    gain = w(f"{name}.weight", D, scale=0.1, offset=1.0)
    return normed(x, -1) * gain + w(f"{name}.bias", D, scale=0.1)


def adaptive(w, name, kind, rows, x, index):
    """Norms x [B, L, D] and modulates it by the index of each sample [B]."""
    if kind.endswith("_abs"):
        # Phases of up to 4000 in float32, as everybody has them.
        half = D // 2
        slope = np.float32(-math.log(10000) / (half - 1))
        frequency = np.exp(np.arange(half, dtype=np.float32) * slope)
        rescaled = index.astype(np.float32) / np.float32(rows) * np.float32(4000)
        phase = (rescaled[:, None] * frequency).astype(np.float64)
        u = np.concatenate([np.sin(phase), np.cos(phase)], 1)
    else:
        u = w(f"{name}.emb.weight", rows, D)[index]
    u = u / (1 + np.exp(-u))
    both = linear(w, f"{name}.linear", u, D, 2 * D)[:, None]
    axis = 1 if kind.startswith("adainsnorm") else -1
    return normed(x, axis) * (1 + both[..., :D]) + both[..., D:]


def attention(w, name, x, y, width):
    def heads(v):
        return v.reshape(v.shape[0], -1, HEADS, D // HEADS).transpose(0, 2, 1, 3)

    q = heads(linear(w, f"{name}.query", x, D, D))
    k = heads(linear(w, f"{name}.key", y, width, D))
    v = heads(linear(w, f"{name}.value", y, width, D))
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(D // HEADS)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = scores / scores.sum(-1, keepdims=True) @ v
    mixed = mixed.transpose(0, 2, 1, 3).reshape(x.shape)
    return linear(w, f"{name}.proj", mixed, D, D)


def activated(kind, x):
    if kind == "GELU":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x / (1 + np.exp(-1.702 * x))


def convolved(w, name, x, inputs, outputs):
    """3x3 with a border of zeros: x [B, H, W, inputs]."""
    kernel = w(f"{name}.weight", outputs, inputs, 3, 3, scale=0.15)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = x.shape[1:3]
    out = np.zeros((*x.shape[:3], outputs))
    for i in range(3):
        for j in range(3):
            out += padded[:, i : i + rows, j : j + columns] @ kernel[:, :, i, j].T
    return out + w(f"{name}.bias", outputs, scale=0.1)


def feed_forward(w, name, mlp, activation, x):
    if mlp == "fc":
        hidden = activated(activation, linear(w, f"{name}.0", x, D, TIMES * D))
        return linear(w, f"{name}.2", hidden, TIMES * D, D)
    image = x.reshape(B, *GRID, D)
    hidden = activated(activation, convolved(w, f"{name}.conv1", image, D, TIMES * D))
    return convolved(w, f"{name}.conv2", hidden, TIMES * D, D).reshape(x.shape)


def logits(w, case, x_t, t, y):
    network, mlp, activation, positions, (rows, columns), time, label = case
    if positions == "parameter":
        height = w("content_emb.height_emb", 1, rows, D)[0]
        across = w("content_emb.width_emb", 1, columns, D)[0]
    else:
        height = w("content_emb.height_emb.weight", rows, D)
        across = w("content_emb.width_emb.weight", columns, D)
    flat = np.arange(L)
    place = height[flat // columns] + across[flat % columns]
    x = w("content_emb.emb.weight", K + 1, D)[x_t] + place
    for i in range(LAYERS):
        block = f"blocks.{i}"
        attn = f"{block}.attn1" if network == "text" else f"{block}.attn"
        h = adaptive(w, f"{block}.ln1", time, T, x, t)
        x = x + attention(w, attn, h, h, D)
        if network == "text":
            h = adaptive(w, f"{block}.ln1_1", time, T, x, t)
            x = x + attention(w, f"{block}.attn2", h, y, TEXT_WIDTH)
        if network == "class":
            h = adaptive(w, f"{block}.ln2", label, CLASSES, x, y)
        else:
            h = layer_norm(w, f"{block}.ln2", x)
        x = x + feed_forward(w, f"{block}.mlp", mlp, activation, h)
    return linear(w, "to_logits.1", layer_norm(w, "to_logits.0", x), D, K)


def configuration(case):
    network, mlp, activation, positions, size, time, label = case
    model, transformer, attention_type = NETWORKS[network]
    modeling = "image_synthesis.modeling"
    params = {
        "attn_type": attention_type,
        "n_layer": LAYERS,
        "content_seq_len": L,
        "content_spatial_size": list(GRID),
        "n_embd": D,
        "n_head": HEADS,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "block_activate": activation,
        "timestep_type": time,
        "mlp_hidden_times": TIMES,
        "mlp_type": mlp,
    }
    if network == "text":
        params |= {"condition_dim": TEXT_WIDTH, "condition_seq_len": TEXT}
    if network == "class":
        params |= {"class_type": label, "class_number": CLASSES}
    diffusion = {
        "diffusion_step": T,
        "alpha_init_type": "alpha1",
        "transformer_config": {
            "target": f"{modeling}.transformers.transformer_utils.{transformer}",
            "params": params,
        },
        "content_emb_config": {
            "target": f"{modeling}.embeddings.dalle_mask_image_embedding.DalleMaskImageEmbedding",
            "params": {
                "num_embed": K,
                "spatial_size": list(size),
                "embed_dim": D,
                "pos_emb_type": positions,
            },
        },
    }
    return {
        "model": {
            "target": f"{modeling}.models.{model}",
            "params": {
                "diffusion_config": {
                    "target": f"{modeling}.transformers.diffusion_transformer.DiffusionTransformer",
                    "params": diffusion,
                }
            },
        }
    }


tensors, configurations = {}, {}
for name, case in CASES.items():
    w = Weights(name)
    x_t = w.random.integers(0, K + 1, (B, L))
    t = np.array([T - 1, 0, 3])
    if case[0] == "text":
        y = w.random.standard_normal((B, TEXT, TEXT_WIDTH)).astype(np.float32)
    else:
        y = np.array([2, 4, 0])
    expected = logits(w, case, x_t, t, y.astype(np.float64) if case[0] == "text" else y)
    tensors |= {f"{name}/weight/{key}": value for key, value in w.tensors.items()}
    tensors |= {
        f"{name}/x_t": x_t.astype(np.int64),
        f"{name}/t": t.astype(np.int64),
        f"{name}/y": y,
        f"{name}/logits": expected.astype(np.float32),
    }
    configurations[name] = configuration(case)

folder = pathlib.Path(__file__).parent
save_file(tensors, folder / "options.safetensors")
(folder / "options.json").write_text(json.dumps(configurations, indent=1) + "\n")
