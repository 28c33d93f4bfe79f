"""Records Pillow's bicubic resizing of a small formula picture in pillow.json.

    pip install pillow
    python tests/resize/generate.py
"""

import hashlib
import json
import pathlib

import PIL
from PIL import Image

SIZES = [(64, 64), (31, 20), (97, 50), (96, 64), (97, 64), (64, 96), (7, 5), (1, 1), (200, 3), (128, 131)]


def picture(width, height):
    """Values of a linear congruential sequence: as rough as a picture can be."""
    state, values = 12345, bytearray()
    for _ in range(3 * width * height):
        state = (1103515245 * state + 12345) % 2**31
        values.append(state >> 16 & 0xFF)
    return Image.frombytes("RGB", (width, height), bytes(values))


source = picture(97, 64)
cases = []
for size in SIZES:
    data = source.resize(size, Image.BICUBIC).tobytes()
    cases.append({
        "width": size[0],
        "height": size[1],
        "first": list(data[:24]),
        "sha256": hashlib.sha256(data).hexdigest(),
    })
out = {"pillow": PIL.__version__, "source": [97, 64], "cases": cases}
path = pathlib.Path(__file__).parent / "pillow.json"
path.write_text(json.dumps(out, indent=1) + "\n")
