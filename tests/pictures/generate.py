"""Writes small pictures of every kind that data sets hold, and what Pillow makes of them.

    pip install pillow==13.0.0 && python generate.py

`pillow.json` has the bytes of `Image.open(file).convert("RGB")`, row by row.
"""

import json
import struct
import zlib
from pathlib import Path

from PIL import Image

here = Path(__file__).parent
size = (12, 8)


def picture(shift=0):
    image = Image.new("RGB", size)
    for y in range(size[1]):
        for x in range(size[0]):
            image.putpixel((x, y), (20 * x + shift, 30 * y, 255 - 10 * (x + y)))
    return image


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, depth, colour, rows, chunks=b""):
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    (here / name).write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunks
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


rgb = picture()
rgb.convert("CMYK").save(here / "cmyk.jpg", quality=95)
rgb.save(here / "progressive.jpg", quality=95, progressive=True, subsampling=0)
rgb.convert("L").save(here / "grey.jpg", quality=95)
rgb.save(here / "lossless.webp", lossless=True)
rgb.save(here / "lossy.webp", quality=95)
frames = [picture(), picture(15)]
frames[0].save(
    here / "animated.webp", save_all=True, append_images=frames[1:], lossless=True
)
frames[0].save(here / "animated.gif", save_all=True, append_images=frames[1:])
rgb.quantize(7).save(here / "palette.png")
deep = [
    b"".join(
        struct.pack(">HHH", 5000 * x + 255, 8000 * y + 128, 65535 - 3 * x) for x in range(12)
    )
    for y in range(8)
]
png("rgb16.png", 16, 2, deep)

expected = {}
for path in sorted(here.iterdir()):
    if path.suffix in (".jpg", ".png", ".webp", ".gif"):
        expected[path.name] = list(Image.open(path).convert("RGB").tobytes())
grey = [b"".join(struct.pack(">H", 5000 * x + y) for x in range(12)) for y in range(8)]
png("grey16.png", 16, 0, grey)  # clipped at 255 by Pillow: refused
damaged = here / "damaged"
damaged.mkdir(exist_ok=True)
png("damaged/short_palette.png", 8, 3, [bytes(12)] * 8, chunk(b"PLTE", bytes([1, 2, 3, 4])))
(here / "pillow.json").write_text(json.dumps(expected) + "\n")
