#!/usr/bin/env python3
"""Check the distance of `vqdiffusion evaluate retrieval` on real pictures alone.

    scripts/check_retrieval.py data/emoji [--count 600]

Damages a fixed draw of the data set's pictures in several ways, looks for the originals
among all of them with the program, and prints how many are found. Then takes for every
held-out pair the concept's training pictures in the other styles, as a model would that
copies: how many are nearer to the held-out picture than to any third. No model is involved.

Needs Pillow and numpy, and the release build.
"""
import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SPLITS = ("train", "heldout_pairs", "heldout_colours")


def coarse(picture, side):
    return picture.resize((side, side), Image.BOX).resize(picture.size, Image.BILINEAR)


def jpeg(picture, quality):
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=quality)
    return Image.open(packed).convert("RGB")


def noisy(picture, deviation, generator):
    pixels = np.asarray(picture) + generator.normal(0, deviation, (*picture.size, 3))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def shifted(picture, pixels):
    out = Image.new("RGB", picture.size, "white")
    out.paste(picture, (pixels, pixels))
    return out


def write(folder, labelled):
    """A data set of (picture, label) pairs."""
    folder.mkdir()
    lines = []
    for i, (picture, label) in enumerate(labelled):
        picture.save(folder / f"{i}.png")
        lines.append(json.dumps({**label, "file": f"{i}.png"}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with " + ", ".join(SPLITS))
    parser.add_argument("--count", type=int, default=600)
    args = parser.parse_args()
    program = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[1] / "target")) / "release/vqdiffusion"
    lines = [(folder, json.loads(line)) for folder in SPLITS
             for line in (args.data / folder / "captions.jsonl").read_text().splitlines()]
    generator = np.random.default_rng(0)
    drawn = [lines[i] for i in generator.choice(len(lines), min(args.count, len(lines)), replace=False)]
    damages = {
        "unchanged": lambda p: p,
        "coarsened 4 times": lambda p: coarse(p, 16),
        "coarsened 8 times": lambda p: coarse(p, 8),
        "Gaussian blur of 2 pixels": lambda p: p.filter(ImageFilter.GaussianBlur(2)),
        "JPEG at quality 10": lambda p: jpeg(p, 10),
        "noise of 40 steps": lambda p: noisy(p, 40, generator),
        "10 % darker": lambda p: p.point(lambda value: value * 0.9),
        "shifted by 1 pixel, both ways": lambda p: shifted(p, 1),
        "shifted by 2 pixels, both ways": lambda p: shifted(p, 2),
    }
    with tempfile.TemporaryDirectory() as work:
        made = Path(work)
        def real(source, label):
            return Image.open(args.data / source / label["file"]).convert("RGB")

        folders = [write(made / f"{n}", ((damage(real(*line)), line[1]) for line in drawn))
                   for n, damage in enumerate(damages.values())]
        known = {}
        for source, label in lines:
            if source == "train":
                known.setdefault(label["concept"], []).append(label)
        folders.append(write(made / "copies", (
            (real("train", other), label) for source, label in lines if source == "heldout_pairs"
            for other in known.get(label["concept"], []))))
        run = subprocess.run([program, "evaluate", "retrieval", "--out", made / "out", "--pictures", *folders,
                              "--gallery", *(args.data / folder for folder in SPLITS)], stdout=subprocess.DEVNULL)
        if run.returncode:
            sys.exit(run.returncode)
        report = json.loads((made / "out/report.json").read_text())
    print("| damage | top-1 | top-5 | concept | style |\n|---|---|---|---|---|")
    for name, split in zip(damages, report["splits"]):
        rates = (f"{100 * split['all'][figure]['rate']:.1f} %" for figure in ("top1", "top5", "concept", "style"))
        print(f"| {name} | {' | '.join(rates)} |")
    # The copy is in the gallery itself, before all others.
    ranks = [picture["rank"] - 1 for picture in report["splits"][-1]["pictures"]]
    share = 100 * sum(rank <= 1 for rank in ranks) / len(ranks)
    print(f"\nanother style of a held-out pair's concept as the guess: {len(ranks)}, top-1 {share:.1f} %")


if __name__ == "__main__":
    main()
