#!/usr/bin/env python3
"""Measure samplers of a model that draws emoji: quality against network calls and seconds.

Needs the pictures that `scripts/data/emoji` makes, a built `vqdiffusion`, and nothing else.

    scripts/bench/samplers.py --out samplers
    scripts/bench/samplers.py --out try --limit 4 --cells even-25 cosine-08
    scripts/bench/samplers.py --out samplers -- --device cuda --batch-size 64

Every sampler is asked for the same prompts with the same seeds: captions of training and of
held-out pairs and concepts, objects in held-out colours, bare names, and a few bare names with eight
seeds each.
What follows `--` is given to every measurement. A measurement that is there with the same model and
options is not made again, so that the same command goes on after Ctrl-C or after --minutes; what is
there is summed up each time:

    samplers.md                 figures of the reference; differences from it, paired, ± half
                                the 95 % interval
    samplers.csv                the same with the intervals
    summary.json                everything
    plots/*.svg                 the figures against calls and against seconds
    grids/*.png                 the same prompts and seeds by several samplers
"""
import argparse
import csv
import hashlib
import json
import subprocess
import sys
import time
from itertools import product
from math import floor, log10
from pathlib import Path

CALLS = [2, 4, 6, 8, 12, 16, 25, 50, 100]
# In Halton order.
SPREAD_CALLS = [4, 6, 8, 12, 16, 25]
# Measured with all prompts and two seeds, the others with few prompts and one.
FULL = ["even-25", "cosine-08", "halton-08", "even-08", "own", "own-halton"]
FEW_STEPS = ["cosine-08", "halton-08"]
REFERENCE, VARIETY_REFERENCE = "even-25", "even-100"
SPANS = [(0, 0.15), (0.15, 1), (0, 0.5)]
SEEDS = [0, 1_000_000]
FEW = 100
# name: measure, folder of prompts, all of them, further options
SETS = {
    "training": ("retrieval", "train", 300, ["--bound", "6"]),
    "names": ("retrieval", "train", 200, ["--ask", "name", "--bound", "6"]),
    "variety": ("retrieval", "train", 12, ["--ask", "name", "--seeds", "8"]),
    "heldout": ("retrieval", "heldout_pairs", 310, ["--bound", "6"]),
    "concepts": ("retrieval", "heldout_concepts", 300, ["--bound", "6"]),
    "colours": ("colours", "heldout_colours", 200, []),
}
GALLERY = ["train", "withheld", "heldout_pairs", "heldout_colours", "heldout_concepts"]
# Columns of the table: set, figure, heading, decimals, scale; a ratio is not a difference.
COLUMNS = [
    ("training", "wanted_distance", "training: wanted", 2, 1),
    ("training", "bound", "training: bound, nats", 1, 1),
    ("training", "hit", "training: top-1", 1, 100),
    ("heldout", "hit", "held-out pairs: top-1", 1, 100),
    ("concepts", "hit", "held-out concepts: top-1", 1, 100),
    ("colours", "both_hit", "hue and shape", 1, 100),
    ("names", "nearest_distance", "names: nearest", 2, 1),
    ("names", "bound", "names: bound", 1, 1),
    ("names", "concept_hit", "names: concept", 1, 100),
    ("variety", "token_entropy", "variety, ratio", 3, None),
]
# Of each of the few-step samplers against the reference: set, figure, what must hold of it.
GATES = [
    ("training", "wanted_distance", "difference at most 0.3", lambda f: f["difference"] <= 0.3),
    ("names", "nearest_distance", "difference at most 1", lambda f: f["difference"] <= 1),
    ("names", "concept_hit", "at least -4 points", lambda f: f["difference"] >= -0.04),
    ("training", "bound", "interval holds 0", lambda f: f["interval"][0] <= 0 <= f["interval"][1]),
    ("names", "bound", "interval holds 0", lambda f: f["interval"][0] <= 0 <= f["interval"][1]),
    ("variety", "token_entropy", "ratio at least 0.95", lambda f: f["ratio"]["ratio"] >= 0.95),
]


def cells():
    """Options of each sampler, by name; the ones that decide most come first. `own` is the model's
    own sampling, `halton` cosine times in Halton order."""
    found = {"own": [], "own-halton": ["--order", "halton"]}
    for times in ["even", "cosine"]:
        for calls in CALLS:
            name = f"{times}-{calls:02}"
            found[name] = ["--steps", str(calls), "--times", times]
    for calls in SPREAD_CALLS:
        found[f"halton-{calls:02}"] = [*found[f"cosine-{calls:02}"], "--order", "halton"]
    for base in ["cosine-08", "even-25"]:
        found[f"{base}-w1"] = [*found[base], "--guidance", "1"]
        for low, high in SPANS:
            found[f"{base}-span-{low}-{high}"] = [*found[base], "--guidance-span", f"{low}..{high}"]
    for base, steps in [("even-25", 1), ("even-25", 2), ("cosine-12", 1)]:
        found[f"{base}-local-{steps}"] = [*found[base], "--local-steps", str(steps)]
    first = [REFERENCE, *FULL, VARIETY_REFERENCE]
    return {name: found[name] for name in dict.fromkeys([*first, *found])}


class Table:
    def __init__(self, args):
        self.args = args
        self.out = Path(args.out)
        self.deadline = time.monotonic() + 60 * args.minutes if args.minutes else None
        # Another file under the same name is another model.
        model = Path(args.checkpoint)
        self.model = hashlib.sha256(model.read_bytes()).hexdigest() if model.is_file() else ""

    def run(self, *arguments):
        """Runs vqdiffusion; ends the script where that ended itself."""
        done = subprocess.run([self.args.vqdiffusion, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.stderr.write(done.stdout)
            sys.exit(done.returncode)
        return done.stdout

    def sampling(self, options):
        """The options of a cell with the ones that all but the model's own sampling share."""
        if "--steps" not in options:
            return options
        guidance = [] if "--guidance" in options else ["--guidance", self.args.guidance]
        return [*options, *guidance, "--truncation", self.args.truncation]

    def measured(self, cell, options, name, seed):
        """The folder with the report of a set by a sampler; None where it is not wanted."""
        measure, prompts, pictures, more = SETS[name]
        few = cell not in self.args.full
        if (few or name == "variety") and seed != SEEDS[0]:
            return None
        limit = min(pictures, FEW if few else pictures, self.args.limit or pictures)
        data = Path(self.args.data)
        if not (data / prompts).exists():
            return None
        gallery = [data / part for part in self.args.gallery if (data / part).exists()]
        arguments = ["evaluate", measure, "--checkpoint", self.args.checkpoint, "--gallery", *gallery,
                     "--prompts", data / prompts, "--limit", limit, "--seed", seed, *more,
                     *self.sampling(options), *self.args.options]
        arguments = [str(argument) for argument in arguments]
        identity = [self.model, *arguments]
        folder = self.out / "cells" / cell / f"{name}-{seed}"
        said, report = folder / "arguments.json", folder / "report.json"
        if said.exists() and report.exists() and json.loads(said.read_text()) == identity:
            return folder
        if self.deadline and time.monotonic() > self.deadline:
            return None
        print(f"{cell}: {name}, seed {seed}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        said.unlink(missing_ok=True)
        self.run(*arguments, "--out", folder, "--overwrite")
        said.write_text(json.dumps(identity))
        return folder

    def measure(self, wanted):
        found = {}
        # Two seeds of everything would be of little use without the first of each.
        for seed in SEEDS:
            for cell, options in wanted.items():
                for name in self.args.sets:
                    folder = self.measured(cell, options, name, seed)
                    if folder:
                        found.setdefault(cell, {}).setdefault(name, {})[seed] = folder
        return found

    def compared(self, found, cell, name):
        """The figures of a set against the reference; None where one of them lacks it."""
        reference = VARIETY_REFERENCE if name == "variety" else REFERENCE
        own, theirs = found[cell].get(name, {}), found.get(reference, {}).get(name, {})
        pairs = [folder for seed in own if seed in theirs for folder in (own[seed], theirs[seed])]
        if not pairs:
            return None
        path = self.out / "compared" / f"{cell}-{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.run("evaluate", "compare", *pairs, "--out", path, "--overwrite")
        split = json.loads(path.read_text())["splits"][0]
        return {"pictures": split["pictures"], "prompts": split["prompts"], **split["figures"]}

    def row(self, found, cell):
        sets = {name: self.compared(found, cell, name) for name in found[cell]}
        reports = [json.loads((folder / "report.json").read_text())
                   for seeds in found[cell].values() for folder in seeds.values()]
        pictures = [sum(split["measured"] for split in report["splits"]) for report in reports]
        seconds = sum(n * report["seconds_per_picture"] for n, report in zip(pictures, reports))
        return {
            "cell": cell,
            "network_calls": reports[0]["network_calls"],
            "local_calls": reports[0].get("local_calls", 0),
            "seconds_per_picture": seconds / sum(pictures),
            "model_sha256": reports[0]["model_sha256"],
            "sets": {name: figures for name, figures in sets.items() if figures},
        }


def value(row, column):
    """Value and interval of a column, or None."""
    name, figure, _, _, scale = column
    found = row["sets"].get(name, {}).get(figure)
    if not found:
        return None
    if scale is None:
        return found.get("ratio") and (found["ratio"]["ratio"], *found["ratio"]["interval"])
    return tuple(scale * number for number in (found["difference"], *found["interval"]))


def markdown(rows):
    columns = [column for column in COLUMNS if any(value(row, column) for row in rows)]
    head = ["sampler", "calls", "s a picture", *(column[2] for column in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        calls = str(row["network_calls"])
        if row["local_calls"]:
            calls += f" + {row['local_calls']} local"
        line = [row["cell"], calls, f"{row['seconds_per_picture']:.3f}"]
        for column in columns:
            found, (name, figure, _, decimals, scale) = value(row, column), column
            sign = "" if scale is None else "+"
            if found is None:
                line.append("–")
            elif scale and row["cell"] == REFERENCE:
                line.append(f"{scale * row['sets'][name][figure]['a']:.{decimals}f}")
            else:
                line.append(f"{found[0]:{sign}.{decimals}f} ± {(found[2] - found[1]) / 2:.{decimals}f}")
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines) + "\n"


def gates(rows):
    lines = []
    for row, (name, figure, wanted, holds) in product(rows, GATES):
        found = row["sets"].get(name, {}).get(figure)
        if row["cell"] in FEW_STEPS and found and (figure != "token_entropy" or "ratio" in found):
            shown = found["ratio"]["ratio"] if figure == "token_entropy" else found["difference"]
            held = "yes" if holds(found) else "no"
            lines.append(f"- {row['cell']}: {name}, {figure}: {shown:.3f}, {wanted}: {held}")
    return "".join(line + "\n" for line in lines)


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sampler", "network_calls", "local_calls", "seconds_per_picture", "set", "figure",
                         "pictures", "prompts", "value", "reference", "difference", "low", "high"])
        for row in rows:
            for name, figures in row["sets"].items():
                for figure, found in figures.items():
                    if isinstance(found, dict):
                        writer.writerow([row["cell"], row["network_calls"], row["local_calls"],
                                         row["seconds_per_picture"], name, figure, figures["pictures"],
                                         figures["prompts"], found["a"], found["b"], found["difference"],
                                         *found["interval"]])


# Series of the charts: name, colour, whether its points are joined, what a sampler's name has.
SERIES = [
    ("even", "#0072b2", True, None),
    ("cosine", "#d55e00", True, None),
    ("halton", "#56b4e9", True, None),
    ("guidance 1", "#009e73", False, "-w1"),
    ("guided in part", "#cc79a7", False, "-span-"),
    ("local steps", "#e69f00", False, "-local-"),
    ("the model's own", "#3c3c3c", False, "own"),
]


def series_of(cell):
    """Index of the series that a sampler's point belongs to."""
    marked = [n for n, (_, _, _, mark) in enumerate(SERIES) if mark and mark in cell]
    return marked[0] if marked else [name for name, *_ in SERIES].index(cell.split("-")[0])


def panel(points, heading, x_low, x_high, left, top, width, height):
    """The elements of points (series, cost, value, low, high), costs on a logarithmic axis."""
    y_low, y_high = min(p[3] for p in points), max(p[4] for p in points)
    room = 0.05 * (y_high - y_low) or 1
    y_low, y_high = y_low - room, y_high + room

    def x(at):
        return left + width * (log10(at / x_low) / log10(x_high / x_low))

    def y(at):
        return top + height * (y_high - at) / (y_high - y_low)

    svg = [f'<text x="{left}" y="{top - 8}">{heading}</text>']
    step = 10 ** floor(log10(y_high - y_low))
    step = next(part * step for part in (0.2, 0.5, 1, 2) if (y_high - y_low) / (part * step) <= 7)
    for at in (step * n for n in range(floor(y_low / step) + 1, floor(y_high / step) + 1)):
        svg.append(f'<path d="M{left} {y(at):.1f}h{width}" stroke="{"#888" if at == 0 else "#ddd"}"/>'
                   f'<text x="{left - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{at:.4g}</text>')
    ticks = [part * 10.0**power for power in range(-6, 7) for part in (1, 2, 5)]
    for at in (tick for tick in ticks if x_low <= tick <= x_high):
        svg.append(f'<text x="{x(at):.1f}" y="{top + height + 16}" text-anchor="middle">{at:.3g}</text>')
    for n, (_, colour, joined, _) in enumerate(SERIES):
        line = sorted(point[1:] for point in points if point[0] == n)
        if joined and len(line) > 1:
            path = " ".join(f"{x(p[0]):.1f},{y(p[1]):.1f}" for p in line)
            svg.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for at, middle, low, high in line:
            svg.append(f'<path d="M{x(at):.1f} {y(low):.1f}V{y(high):.1f}" stroke="{colour}"/>'
                       f'<circle cx="{x(at):.1f}" cy="{y(middle):.1f}" r="3" fill="{colour}"/>')
    return svg


def chart(path, rows, cost, heading):
    """Every column against a cost on a logarithmic axis, a panel each."""
    width, height, across, down = 390, 200, 480, 270
    costs = {row[cost] for row in rows}
    if len(costs) < 2:
        return
    panels = []
    for column in COLUMNS:
        points = [(series_of(row["cell"]), row[cost], *found) for row in rows if (found := value(row, column))]
        n = len(panels)
        left, top = 60 + across * (n % 2), 70 + down * (n // 2)
        if points:
            panels.append(panel(points, column[2], min(costs), max(costs), left, top, width, height))
    tall = 70 + down * ((len(panels) + 1) // 2)
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {tall}" font-family="sans-serif" font-size="12">',
           f'<rect width="960" height="{tall}" fill="white"/>',
           f'<text x="60" y="20">Differences from {REFERENCE} (variety: ratio to {VARIETY_REFERENCE}), '
           f'95 % intervals, against {heading}</text>']
    found = sorted({series_of(row["cell"]) for row in rows})
    for place, n in enumerate(found):
        name, colour, *_ = SERIES[n]
        svg.append(f'<circle cx="{66 + 125 * place}" cy="36" r="4" fill="{colour}"/>'
                   f'<text x="{76 + 125 * place}" y="40">{name}</text>')
    path.write_text("\n".join([*svg, *sum(panels, []), "</svg>"]) + "\n")


def grids(table, wanted, count):
    """Sheets of the same captions and bare names by every sampler."""
    if count == 0:
        return
    folder = table.out / "grids"
    folder.mkdir(parents=True, exist_ok=True)
    lines = (Path(table.args.data) / "train" / "captions.jsonl").read_text().splitlines()
    labels = [json.loads(line) for line in lines[:: max(1, len(lines) // count)][:count]]
    prompts = [label["captions"][0] for label in labels] + [label["concept"] for label in labels]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    for cell, options in wanted.items():
        made, sheet, said = folder / cell, folder / f"{cell}.png", folder / f"{cell}.json"
        arguments = ["sample", "--checkpoint", table.args.checkpoint, "--prompts", str(folder / "prompts.txt"),
                     "--grid", "--out", str(made), *table.sampling(options), *table.args.options]
        identity = [table.model, prompts, arguments]
        if sheet.exists() and said.exists() and json.loads(said.read_text()) == identity:
            continue
        said.unlink(missing_ok=True)
        table.run(*arguments, "--overwrite")
        (made / "grid.png").rename(sheet)
        said.write_text(json.dumps(identity))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of everything; the same one goes on")
    parser.add_argument("--vqdiffusion", default="target/release/vqdiffusion", help="the program")
    parser.add_argument("--checkpoint", default="checkpoints/emoji.safetensors")
    parser.add_argument("--data", default="data/emoji", help="what scripts/data/emoji made")
    parser.add_argument("--gallery", nargs="+", default=GALLERY, metavar="PART", help="parts of it to look among")
    parser.add_argument("--guidance", default="1.25", help="where a sampler has none of its own")
    parser.add_argument("--truncation", default="0.86")
    parser.add_argument("--limit", type=int, help="prompts of each set, at most")
    parser.add_argument("--minutes", type=float, help="begin no measurement later")
    parser.add_argument("--cells", nargs="+", choices=cells(), metavar="CELL", help=f"of {' '.join(cells())}")
    parser.add_argument("--full", nargs="*", default=FULL, metavar="CELL",
                        help=f"those with all prompts and two seeds ({' '.join(FULL)})")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--grid", type=int, default=8, help="captions, and names, of a picture grid; 0 makes none")
    arguments = [*sys.argv[1:], "--"]
    end = arguments.index("--")
    args = parser.parse_args(arguments[:end])
    args.options = arguments[end + 1:][:-1]
    table = Table(args)
    wanted = {name: options for name, options in cells().items() if not args.cells or name in args.cells}
    found = table.measure(wanted)
    rows = sorted((table.row(found, cell) for cell in found),
                  key=lambda row: (series_of(row["cell"]), row["network_calls"], row["cell"]))
    table.out.mkdir(parents=True, exist_ok=True)
    (table.out / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    write_csv(table.out / "samplers.csv", rows)
    (table.out / "samplers.md").write_text(markdown(rows) + "\n" + gates(rows))
    plots = table.out / "plots"
    plots.mkdir(exist_ok=True)
    for cost, heading in [("network_calls", "network calls a picture, both branches"),
                          ("seconds_per_picture", "seconds a picture")]:
        chart(plots / f"{cost}.svg", rows, cost, heading)
    grids(table, {name: wanted[name] for name in found}, args.grid)
    print(f"wrote {table.out / 'samplers.md'}")
    complete = sum(len(seeds) for sets in found.values() for seeds in sets.values())
    print(f"{complete} measurements of {len(found)} samplers")


if __name__ == "__main__":
    main()
