#!/usr/bin/env python3
"""Time torch-fidelity's Inception features of pictures, random weights.

Prints one JSON object to set beside `cargo bench --bench metrics -- --set 0`: the same
pictures' side, batch and threads.

    pip install torch torch-fidelity
    python torch_fidelity_features.py --threads 2 --pictures 512
"""
import argparse
import json
import tempfile
import time

import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # The constructor wants a file of weights; its own first ones will do.
    load = torch.load
    torch.load = lambda *_, **__: {}
    strict = FeatureExtractorInceptionV3.load_state_dict
    FeatureExtractorInceptionV3.load_state_dict = lambda *_, **__: None
    with tempfile.NamedTemporaryFile() as empty:
        extractor = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=empty.name
        )
    torch.load, FeatureExtractorInceptionV3.load_state_dict = load, strict
    extractor = extractor.to(args.device).eval()
    pictures = torch.randint(0, 256, (args.pictures, 3, args.side, args.side), dtype=torch.uint8)
    with torch.no_grad():
        extractor(pictures[: args.batch].to(args.device))
        began = time.perf_counter()
        for batch in pictures.split(args.batch):
            extractor(batch.to(args.device))[0].cpu()
        seconds = time.perf_counter() - began
    print(json.dumps({
        "what": "torch-fidelity, Inception features",
        "device": args.device,
        "threads": torch.get_num_threads(),
        "pictures": args.pictures,
        "side": args.side,
        "seconds": seconds,
        "features_per_second": args.pictures / seconds,
    }))


if __name__ == "__main__":
    main()
