#!/usr/bin/env python3
"""Time whole runs of a published model size with random weights, by several samplers.

    python scripts/bench/picture.py --size b --threads 2
    python scripts/bench/picture.py --size b --device cuda --dtype bf16 --batch 8

Runs `cargo bench --bench step -- --whole` for each sampler and prints a markdown table: network
calls, and seconds of a picture's tokens (1024 of the B size), decoding left out. At 100 steps and
guidance a picture of the B size takes ten minutes on two CPU cores; --runs picks some.
"""
import argparse
import json
import subprocess

RUNS = {
    "100 even": ["--of", "100"],
    "25 even": ["--of", "25"],
    "12 cosine": ["--of", "12", "--cosine"],
    "25 even, guided from 0.15": ["--of", "25", "--guidance-from", "0.15"],
    "25 even, 1 local": ["--of", "25", "--local-steps", "1"],
    "25 even, 2 local": ["--of", "25", "--local-steps", "2"],
    "12 cosine, guided from 0.15": ["--of", "12", "--cosine", "--guidance-from", "0.15"],
    "12 cosine, 1 local": ["--of", "12", "--cosine", "--local-steps", "1"],
    "12 cosine, guided from 0.15, 1 local":
        ["--of", "12", "--cosine", "--guidance-from", "0.15", "--local-steps", "1"],
    "25 even, no guidance": ["--of", "25", "--guidance", "1"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["b", "s"], default="b")
    parser.add_argument("--threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN",
                        help=f"of {', '.join(map(repr, RUNS))}")
    args = parser.parse_args()
    fixed = ["--size", args.size, "--device", args.device, "--dtype", args.dtype, "--batch", args.batch]
    if args.threads:
        fixed += ["--threads", args.threads]
    print("| sampler | full calls | local calls | s a picture | s in the network |\n|---|---|---|---|---|")
    for name in args.runs:
        command = ["cargo", "bench", "--quiet", "--bench", "step", "--", "--whole", *fixed, *RUNS[name]]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(said.splitlines()[-1])["picture"]
        print(f"| {name} | {found['network_calls']} | {found['local_calls']} | {found['seconds']:.3f} "
              f"| {found['network_seconds']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
