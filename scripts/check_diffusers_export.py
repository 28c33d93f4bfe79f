#!/usr/bin/env python3
"""Loads a folder that `vqdiffusion convert --to diffusers` wrote with diffusers, and compares.

    scripts/check_diffusers_export.py FOLDER [--prompt TEXT] [--program target/release/vqdiffusion]

Both programs make the one picture that does not depend on random numbers: a single step at
time 0 with only the likeliest code kept, so that every token is the arg max of the logits. The
prompt goes through tokenizer, text tower, network (with guidance) and decoder of either. Pixels
may differ by one level, where a float is near a rounding boundary.

With --reference (tests/fixtures/diffusers_tiny/reference.safetensors) the network's recorded
outputs are compared too; FOLDER must then be made from that case.

Needs diffusers, transformers and torch; not part of the test suite.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import diffusers
import numpy
import torch
import transformers
from diffusers import VQDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

STEPS, TRUNCATION = 1, 1e-6


def ours(arguments, guidance):
    with tempfile.TemporaryDirectory() as folder:
        command = [
            arguments.program, "sample", "--checkpoint", arguments.folder,
            "--compat", "diffusers", "--dtype", "f32", "--steps", str(STEPS),
            "--truncation", str(TRUNCATION), "--guidance", str(guidance),
            "--out", folder, arguments.prompt,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (picture,) = pathlib.Path(folder).glob("*.png")
        return numpy.asarray(Image.open(picture).convert("RGB")).astype(int)


def theirs(pipeline, arguments, guidance):
    result = pipeline(
        arguments.prompt, num_inference_steps=STEPS, guidance_scale=guidance,
        truncation_rate=TRUNCATION,
    )
    return numpy.asarray(result.images[0]).astype(int)


def largest_logit_difference(pipeline, reference):
    recorded = load_file(reference)
    largest = 0.0
    for name, expected in recorded.items():
        if not name.startswith("expected.transformer.t"):
            continue
        time = torch.tensor(int(name.removeprefix("expected.transformer.t")))
        with torch.no_grad():
            output = pipeline.transformer(
                recorded["input.x_t"], encoder_hidden_states=recorded["input.cond_emb"],
                timestep=time,
            ).sample
        largest = max(largest, (output - expected).abs().max().item())
    return largest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--prompt", default="a teddy bear playing in the pool")
    parser.add_argument("--program", default="target/release/vqdiffusion")
    parser.add_argument("--reference")
    arguments = parser.parse_args()
    print(f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")

    pipeline = VQDiffusionPipeline.from_pretrained(arguments.folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    good = True
    for guidance in (1.0, 5.0):
        difference = numpy.abs(ours(arguments, guidance) - theirs(pipeline, arguments, guidance))
        fits = difference.max() <= 1
        good &= bool(fits)
        print(f"guidance {guidance}: {(difference > 0).sum()} of {difference.size} values differ, "
              f"at most by {difference.max()}: {'ok' if fits else 'WRONG'}")
    if arguments.reference:
        difference = largest_logit_difference(pipeline, arguments.reference)
        good &= difference < 1e-4
        print(f"network: largest difference {difference:.1e}: {'ok' if difference < 1e-4 else 'WRONG'}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
