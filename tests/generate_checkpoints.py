"""Writes the checkpoints in tests/checkpoints that the Rust tests read.

Needs PyTorch (2.4 or newer) and NumPy:

    python tests/generate_checkpoints.py

The files are committed, so the tests themselves need no Python. Next to them, expected.json holds
for every file the tensors as PyTorch itself loads them: dtype, shape and the elements' bytes in hex.
"""

import argparse
import collections
import datetime
import enum
import io
import json
import os
import pathlib
import pickle
import sys
import types
import zipfile

import numpy
import torch

FOLDER = pathlib.Path(__file__).parent / "checkpoints"
EXPECTED = {}


def describe(tensor):
    tensor = tensor.detach().contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "bytes": raw.hex(),
    }


def tensors_in(value, path=()):
    if isinstance(value, torch.Tensor):
        yield "/".join(path), value
    elif isinstance(value, dict):
        for key, member in value.items():
            if isinstance(key, str):
                yield from tensors_in(member, path + (key,))


def expect(name, value):
    EXPECTED[name] = {path: describe(tensor) for path, tensor in tensors_in(value)}


def load(name):
    return torch.load(FOLDER / name, weights_only=False)


def save(name, value, **options):
    torch.save(value, FOLDER / name, **options)
    expect(name, load(name))


def ramp(*shape, dtype=torch.float32, start=0):
    count = int(numpy.prod(shape))
    return torch.arange(start, start + count).to(dtype).reshape(shape)


def records(name):
    with zipfile.ZipFile(FOLDER / name) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


def zip_again(name, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(FOLDER / name, "w", compression) as archive:
        for entry, content in members.items():
            # A fixed time keeps the file the same from run to run.
            archive.writestr(zipfile.ZipInfo(entry, (2020, 1, 1, 0, 0, 0)), content, compression)


def training_state():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(ramp(4, 3)).sum().backward()
    optimizer.step()
    state = collections.OrderedDict(
        ("module." + key, value) for key, value in model.state_dict().items()
    )
    return {
        "last_epoch": 7,
        "last_iter": 12345678901,
        "model": state,
        "ema": {key: value * 0.5 for key, value in state.items() if value.is_floating_point()},
        "optimizer": optimizer.state_dict(),
        "none": None,
        "lr": 0.25,
        "flag": True,
    }


def layouts():
    base = ramp(6, 4)
    every = {str(d).removeprefix("torch."): ramp(2, 3).to(d) for d in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
        torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    )}
    return {
        **every,
        "bool": torch.tensor([True, False, True]),
        "base": base,
        "view": base[2:4],
        "columns": base[:, 1:3],
        "column": base[:, 2],
        "transposed": base.t(),
        "every_other": base[::2, ::3],
        "permuted": ramp(2, 3, 4).permute(2, 0, 1),
        "channels_last": ramp(1, 3, 2, 2).to(memory_format=torch.channels_last),
        "expanded": ramp(3).expand(4, 3),
        "expanded_both": ramp(3, 1).expand(2, 3, 5),
        "windows": ramp(10).unfold(0, 4, 1),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0),
        "empty_rows": torch.empty(0, 5, dtype=torch.int64),
        "parameter": torch.nn.Parameter(ramp(2, 2)),
        "special": torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0]),
    }


def parameter_with_attribute():
    parameter = torch.nn.Parameter(ramp(2))
    parameter.note = "kept"
    return parameter


class Color(enum.Enum):
    RED = 1


def lightning_state():
    # Classes of a module that the reader can not know.
    module = types.ModuleType("pytorch_lightning.callbacks")
    for name in ("ModelCheckpoint", "EarlyStopping"):
        setattr(module, name, type(name, (), {"__module__": module.__name__}))
    sys.modules["pytorch_lightning"] = types.ModuleType("pytorch_lightning")
    sys.modules[module.__name__] = module
    counts = collections.defaultdict(list)
    counts["a"].append(1)
    configured = module.ModelCheckpoint()
    configured.tensor = ramp(2)
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "1.0.8",
        "state_dict": {"first_stage.weight": ramp(2, 2)},
        "callbacks": {
            module.ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "monitor": "val"},
            module.EarlyStopping: {"wait": 0},
        },
        "hyper_parameters": argparse.Namespace(
            lr=numpy.float64(0.125), betas=(0.5, 0.9), path=pathlib.PurePosixPath("/a")
        ),
        "numpy": numpy.arange(3),
        "counts": counts,
        "enum": Color.RED,
        "complex": 1 + 2j,
        "time": datetime.datetime(2020, 1, 1),
        "sets": [{1}, frozenset({2}), b"bytes", bytearray(b"array")],
        "long": 1 << 100,
        "negative": -5,
        "slice": slice(1, 2),
        "partial": configured,
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
    }


def write_plain():
    save("zip.pth", training_state())
    save("legacy.pth", training_state(), _use_new_zipfile_serialization=False)
    save("layouts.pth", layouts())
    save("layouts_legacy.pth", layouts(), _use_new_zipfile_serialization=False)
    for protocol in (1, 3, 4, 5):
        value = {"w": ramp(2, 3), "n": {"b": ramp(3).bool()}, "p": parameter_with_attribute()}
        value["numbers"] = [0, 255, 65535, -1, 1 << 40, 0.5, None, True, "é", b"\xff"]
        save(f"protocol{protocol}.pth", value, pickle_protocol=protocol)
        save(
            f"protocol{protocol}_legacy.pth",
            value,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=False,
        )
    # PyTorch writes this, but can not load it.
    torch.save({"w": ramp(2), "n": 5}, FOLDER / "protocol0.pth", pickle_protocol=0)
    save("lightning.ckpt", lightning_state())
    save("lightning_legacy.ckpt", lightning_state(), _use_new_zipfile_serialization=False)
    save("bare_tensor.pt", ramp(2, 2))


def write_foreign():
    torch.save(
        {
            "good": ramp(3),
            "complex": torch.tensor([1 + 2j]),
            "sparse": torch.eye(3).to_sparse(),
            "csr": torch.eye(3).to_sparse_csr(),
            "quantized": torch.quantize_per_tensor(ramp(3), 0.1, 0, torch.qint8),
            "float8": ramp(3).to(torch.float8_e4m3fn),
            "uint16": torch.tensor([1, 2], dtype=torch.uint16),
            "meta": torch.empty(3, device="meta"),
            "untyped": ramp(3).untyped_storage(),
        },
        FOLDER / "foreign.pth",
    )
    expect("foreign.pth", {"good": ramp(3)})


class Layer(torch.nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = torch.nn.Parameter(ramp(*shape))
        self.register_buffer("steps", ramp(4, dtype=torch.int64))

    def forward(self, x):
        return x @ self.weight


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Layer(3, 2)
        self.second = Layer(2, 2)
        self.names = ["a", "b"]
        self.table = {"x": 1}

    def forward(self, x):
        return self.second(self.first(x))


def write_modules():
    torch.jit.save(torch.jit.script(Net()), str(FOLDER / "script.pt"))
    state = torch.jit.load(str(FOLDER / "script.pt")).state_dict()
    EXPECTED["script.pt"] = {k.replace(".", "/"): describe(v) for k, v in state.items()}
    traced = torch.jit.trace(lambda x: x + torch.tensor([1.0, 2.0]), ramp(2))
    torch.jit.save(traced, str(FOLDER / "script_constants.pt"))
    for name, zipped in (("module.pt", True), ("module_legacy.pt", False)):
        torch.save(Layer(2, 3), FOLDER / name, _use_new_zipfile_serialization=zipped)
        loaded = load(name)
        EXPECTED[name] = {
            "_parameters/weight": describe(loaded.weight),
            "_buffers/steps": describe(loaded.steps),
        }


def write_zip_variants():
    save("plain.pth", {"model": {"w": ramp(4, 5), "b": ramp(5).half()}})
    value = load("plain.pth")
    members = records("plain.pth")

    zip_again("deflated.pth", {"outer/" + k: v for k, v in members.items()}, zipfile.ZIP_DEFLATED)
    expect("deflated.pth", value)
    # No folder at all, and a resource file that archivers of some systems add.
    flat = {k.split("/", 1)[1]: v for k, v in members.items()}
    zip_again("flat.pth", {"__MACOSX/plain/._data.pkl": b"\0", **flat})
    expect("flat.pth", value)
    limit, zipfile.ZIP64_LIMIT = zipfile.ZIP64_LIMIT, 1
    zip_again("zip64.pth", members)
    zipfile.ZIP64_LIMIT = limit
    expect("zip64.pth", value)
    big = {k: b"big" if k.endswith("byteorder") else v for k, v in members.items()}
    zip_again("big_endian.pth", big)

    whole = (FOLDER / "plain.pth").read_bytes()
    third = len(whole) // 3
    for letters, part in zip(("aa", "ab", "ac"), (whole[:third], whole[third:-third], whole[-third:])):
        (FOLDER / f"split.pth_{letters}").write_bytes(part)
    expect("split.pth", value)

    # Values nested deeper than any stack: lists by APPEND, tuples by TUPLE1.
    name = next(k for k in members if k.endswith("/data.pkl"))
    depth = 100_000
    lists = b"X\x05\0\0\0lists" + b"]" * depth + b"a" * (depth - 1) + b"s"
    tuples = b"X\x06\0\0\0tuples" + b")" + b"\x85" * depth + b"s"
    deep = members[name][:-1] + lists + tuples + b"."
    zip_again("deep.pth", {**members, name: deep}, zipfile.ZIP_DEFLATED)
    expect("deep.pth", value)
    # A million references to one tuple of a million, which copying would not survive.
    bomb = b"X\x04\0\0\0bomb(" + b"N" * 1_000_000 + b"tr\xff\xff\0\0" + b"0]("
    bomb += b"j\xff\xff\0\0" * 1_000_000 + b"es"
    zip_again("bomb.pth", {**members, name: members[name][:-1] + bomb + b"."}, zipfile.ZIP_DEFLATED)
    expect("bomb.pth", value)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/a_checkpoint_was_executed",)


def write_malicious():
    for name, zipped in (("malicious.pth", True), ("malicious_legacy.pth", False)):
        value = {"model": {"w": ramp(3)}, "evil": Evil()}
        torch.save(value, FOLDER / name, _use_new_zipfile_serialization=zipped)
        expect(name, {"model": {"w": ramp(3)}})


class OldTensor:
    """Stands for a tensor in the layout that PyTorch 0.4 wrote for views of storages."""

    def __init__(self, pid, offset, size, stride):
        self.call = (torch._utils._rebuild_tensor_v2,
                     (OldStorage(pid), offset, size, stride, False, collections.OrderedDict()))

    def __reduce__(self):
        return self.call


class OldStorage:
    def __init__(self, pid):
        self.pid = pid


class OldPickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.pid if isinstance(value, OldStorage) else None


def write_old_views():
    out = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001,
                   {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(header, out, 2)
    whole = ("storage", torch.FloatStorage, "7", "cpu", 10, None)
    view = ("storage", torch.FloatStorage, "7", "cpu", 10, ("8", 4, 6))
    value = {"whole": OldTensor(whole, 0, (10,), (1,)), "view": OldTensor(view, 1, (2, 2), (2, 1))}
    OldPickler(out, 2).dump(value)
    pickle.dump(["7"], out, 2)
    out.write((10).to_bytes(8, "little") + ramp(10).numpy().tobytes())
    (FOLDER / "old_views.pth").write_bytes(out.getvalue())
    expect("old_views.pth", load("old_views.pth"))
    swapped = out.getvalue().replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    assert swapped != out.getvalue()
    (FOLDER / "big_endian_legacy.pth").write_bytes(swapped)

# One storage for all weights of the small model below keeps its files small.
WEIGHTS = torch.randn(10_000, generator=torch.Generator().manual_seed(5)) * 0.2


def weights(*shape, dtype=torch.float32):
    count = int(numpy.prod(shape))
    start = (7 * shape[0] + 3 * len(shape)) % (len(WEIGHTS) - count)
    return WEIGHTS[start : start + count].reshape(shape).to(dtype)


def layer(name, *shape, dtype=torch.float32):
    return {f"{name}.weight": weights(*shape, dtype=dtype), f"{name}.bias": weights(shape[0], dtype=dtype)}


def norm(name, width):
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


def clip_tower():
    """A text tower in the names of CLIP: dense layers in half precision, as released."""
    half = torch.float16
    tower = {
        "token_embedding.weight": weights(520, 16),
        "positional_embedding": weights(77, 16),
        **norm("ln_final", 16),
        "text_projection": weights(16, 16, dtype=half),
    }
    block = "transformer.resblocks.0"
    tower[f"{block}.attn.in_proj_weight"] = weights(48, 16, dtype=half)
    tower[f"{block}.attn.in_proj_bias"] = weights(48, dtype=half)
    for name, shape in (("attn.out_proj", (16, 16)), ("mlp.c_fc", (64, 16)), ("mlp.c_proj", (16, 64))):
        tower.update(layer(f"{block}.{name}", *shape, dtype=half))
    for name in ("ln_1", "ln_2"):
        tower.update(norm(f"{block}.{name}", 16))
    return tower


def denoiser():
    """One block of width 16 over 4 x 4 tokens of 10 codes, 6 time steps."""
    names = {
        "content_emb.emb.weight": weights(11, 16),
        "content_emb.height_emb.weight": weights(4, 16),
        "content_emb.width_emb.weight": weights(4, 16),
        **norm("blocks.0.ln2", 16),
        **layer("blocks.0.mlp.0", 64, 16),
        **layer("blocks.0.mlp.2", 16, 64),
        **norm("to_logits.0", 16),
        **layer("to_logits.1", 10, 16),
    }
    for part in ("ln1", "ln1_1"):
        names[f"blocks.0.{part}.emb.weight"] = weights(6, 16)
        names.update(layer(f"blocks.0.{part}.linear", 32, 16))
    for part in ("attn1", "attn2"):
        for name in ("query", "key", "value", "proj"):
            names.update(layer(f"blocks.0.{part}.{name}", 16, 16))
    return names


def residual(name):
    return {
        **norm(f"{name}.norm1", 32), **layer(f"{name}.conv1", 32, 32, 3, 3),
        **norm(f"{name}.norm2", 32), **layer(f"{name}.conv2", 32, 32, 3, 3),
    }


def half_codec(side, level, blocks, inputs, outputs):
    names = {
        **layer(f"{side}.conv_in", 32, inputs, 3, 3),
        **norm(f"{side}.norm_out", 32),
        **layer(f"{side}.conv_out", outputs, 32, 3, 3),
        **norm(f"{side}.mid.attn_1.norm", 32),
    }
    for name in ("q", "k", "v", "proj_out"):
        names.update(layer(f"{side}.mid.attn_1.{name}", 32, 32, 1, 1))
    for name in ["mid.block_1", "mid.block_2"] + [f"{level}.0.block.{n}" for n in range(blocks)]:
        names.update(residual(f"{side}.{name}"))
    return names


def codec():
    return {
        **half_codec("encoder", "down", 1, 3, 8),
        **half_codec("decoder", "up", 2, 8, 3),
        **layer("quant_conv", 8, 8, 1, 1),
        **layer("post_quant_conv", 8, 8, 1, 1),
        "quantize.embedding": weights(10, 8),
    }


class Part(torch.nn.Module):
    """Parameters and parts by dotted names."""

    def __init__(self, tensors):
        super().__init__()
        parts = collections.defaultdict(dict)
        for name, tensor in tensors.items():
            first, _, rest = name.partition(".")
            if rest:
                parts[first][rest] = tensor
            elif tensor.is_floating_point():
                setattr(self, first, torch.nn.Parameter(tensor))
            else:
                self.register_buffer(first, tensor)
        for name, members in parts.items():
            setattr(self, name, Part(members))


def in_halves(tensors):
    for name, tensor in tensors.items():
        part = name.split(".")[0]
        for half, members in (("enc", ("encoder", "quant_conv", "quantize")),
                              ("dec", ("decoder", "post_quant_conv", "quantize"))):
            if part in members:
                yield f"content_codec.{half}.{name}", tensor


def write_models():
    """One small text-to-image model in the ways that its parts are found in: whole in the old
    pickle format, and in three files: split, Lightning's and TorchScript."""
    tower = clip_tower()
    network = {f"transformer.transformer.{k}": v for k, v in denoiser().items()}
    whole = {
        **dict(in_halves(codec())),
        **network,
        **{f"transformer.condition_emb.{k}": v for k, v in tower.items()},
    }
    state = {"last_epoch": 1, "last_iter": 2, "model": whole}
    torch.save(state, FOLDER / "model_legacy.pth", _use_new_zipfile_serialization=False)

    out = io.BytesIO()
    torch.save({"last_epoch": 1, "last_iter": 2, "model": network}, out)
    data = out.getvalue()
    half = len(data) // 2
    (FOLDER / "model_split.pth_aa").write_bytes(data[:half])
    (FOLDER / "model_split.pth_ab").write_bytes(data[half:])

    lightning = lightning_state()
    lightning["state_dict"] = {**codec(), "loss.discriminator.main.0.weight": weights(4, 4)}
    torch.save(lightning, FOLDER / "codec_lightning.ckpt")

    scalars = {name: torch.tensor(n) for name, n in (
        ("input_resolution", 224), ("context_length", 77), ("vocab_size", 520))}
    archive = {**tower, **scalars, "logit_scale": torch.tensor(1.0), "visual.conv1.weight": weights(4, 4)}
    torch.jit.save(torch.jit.script(Part(archive)), str(FOLDER / "clip_script.pt"))



def main():
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    write_plain()
    write_foreign()
    write_modules()
    write_zip_variants()
    write_malicious()
    write_old_views()
    write_models()
    lines = [f"{json.dumps(name)}: {json.dumps(EXPECTED[name])}" for name in sorted(EXPECTED)]
    (FOLDER / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
