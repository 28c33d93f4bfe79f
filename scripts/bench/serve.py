#!/usr/bin/env python3
"""Time a running `vqdiffusion serve`, with nothing but Python's own library.

Prints one JSON object: milliseconds of a request beyond the sampling of its picture, and what
became of many requests of many clients at once, one step each.

    vqdiffusion serve --checkpoint checkpoints/emoji.safetensors --port 7860 &
    python scripts/bench/serve.py http://127.0.0.1:7860
"""
import argparse
import json
import re
import threading
import time
import urllib.error
import urllib.request


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=2000)
    args = parser.parse_args()

    def make(**fields):
        body = json.dumps({"prompt": "red heart", **fields}).encode()
        request = urllib.request.Request(
            args.address + "/v1/images/generations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def metric(name):
        with urllib.request.urlopen(args.address + "/metrics") as answer:
            text = answer.read().decode()
        return float(re.search(rf"^vqdiffusion_{name} (\S+)", text, re.M).group(1))

    make(seed=0)  # warms up
    sampling, since = metric("sampling_seconds_total"), time.time()
    for seed in range(args.jobs):
        make(seed=seed)
    taken = time.time() - since
    sampling = metric("sampling_seconds_total") - sampling

    answered, failed = [], []

    def client(number):
        for seed in range(number, args.requests, args.clients):
            while True:
                try:
                    make(seed=seed, steps=1)
                    answered.append(seed)
                except urllib.error.HTTPError as error:
                    if error.code == 429:  # a full queue: again
                        time.sleep(0.2)
                        continue
                    failed.append(error.code)
                break

    made, since = metric("pictures_total"), time.time()
    clients = [threading.Thread(target=client, args=(i,)) for i in range(args.clients)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    print(json.dumps({
        "what": "vqdiffusion serve",
        "sampling_ms": 1e3 * sampling / args.jobs,
        "beyond_sampling_ms": 1e3 * (taken - sampling) / args.jobs,
        "requests": args.requests,
        "clients": args.clients,
        "seconds": time.time() - since,
        "answered_once": len(answered) == len(set(answered)) == args.requests,
        "failed": len(failed),
        "pictures_made": metric("pictures_total") - made,
    }))


if __name__ == "__main__":
    main()
