"""Drawing pictures on white, and turning their hues."""
import io

import numpy as np
import resvg_py
from PIL import Image

SIDE = 64
# Hue angles of named colours, and how far a picture's own hue may lie from one to bear its name.
COLOURS = {"red": 0, "orange": 28, "yellow": 50, "green": 120, "blue": 215, "purple": 275, "pink": 330}
NEAR = 20


def draw(path):
    """RGB on white, SIDE x SIDE."""
    picture = Image.open(path).convert("RGBA")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.LANCZOS)
    return on_white(picture)


def on_white(picture):
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def draw_icon(icon, defaults):
    """An icon of an Iconify set, centred in a square."""
    left, top, width, height = (icon.get(k, defaults.get(k, d)) for k, d in
                                (("left", 0), ("top", 0), ("width", 16), ("height", 16)))
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
           f'viewBox="{box}" width="{SIDE}" height="{SIDE}">{icon["body"]}</svg>')
    return on_white(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)))))


def draw_clipart(path):
    """A drawing cut to what is drawn, centred in a square; None if it is broken or empty."""
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=256, dpi=96, skip_system_fonts=True))
        picture = Image.open(io.BytesIO(png))
        if max(picture.size) > 2048:
            return None
        picture = on_white(picture)
    except ValueError:
        return None
    drawn = np.asarray(picture).min(axis=2) < 245
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if len(rows) < 40 or len(columns) < 40:
        return None
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    picture = picture.crop(box)
    width, height = picture.size
    side = round(max(width, height) * 1.06)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square.resize((SIDE, SIDE), Image.LANCZOS)


def is_coloured_drawing(picture):
    """Whether it fills some of the square and has colours: neither lines alone nor a photograph's box."""
    hsv = np.asarray(picture.convert("HSV")).astype(float) / 255
    drawn = np.asarray(picture).min(axis=2) < 235
    coloured = drawn & (hsv[..., 1] > 0.3) & (hsv[..., 2] > 0.2)
    return 0.12 < drawn.mean() < 0.93 and coloured.sum() > 0.3 * drawn.sum()


def is_empty(picture):
    """Nothing drawn, or all one colour."""
    values = np.asarray(picture)
    return (values.min(axis=2) < 235).mean() < 0.03 or values.std(axis=(0, 1)).max() < 4


def is_black(picture):
    """A drawing whose colours got lost: a large black shape."""
    return (np.asarray(picture).max(axis=2) < 8).mean() > 0.4


def hue_of_most(picture, vivid_share, near, near_share):
    """The hue angle that at least `near_share` of the vivid pixels lie within `near` of, where
    at least `vivid_share` of what is drawn is vivid."""
    hsv = np.asarray(picture.convert("HSV")).astype(float)
    hue, saturation, value = hsv[..., 0] * 360 / 255, hsv[..., 1] / 255, hsv[..., 2] / 255
    drawn = ~((saturation < 0.08) & (value > 0.96))
    vivid = drawn & (saturation > 0.35) & (value > 0.3)
    if vivid.sum() < vivid_share * drawn.sum() or vivid.sum() < 300:
        return None
    weights = np.histogram(hue[vivid], bins=36, range=(0, 360))[0]
    smooth = weights + np.roll(weights, 1) + np.roll(weights, -1)
    centre = smooth.argmax() * 10 + 5
    share = (np.abs((hue[vivid] - centre + 180) % 360 - 180) <= near).mean()
    return float(centre) if share > near_share else None


def dominant_hue(picture):
    """The hue angle that most of the object has, if there is one."""
    return hue_of_most(picture, vivid_share=0.6, near=20, near_share=0.85)


def single_hue(picture):
    """The hue angle of the main part of an object: most of what is vivid, beside greys and outlines."""
    return hue_of_most(picture, vivid_share=0.45, near=25, near_share=0.72)


def turn_hue(picture, hue, turn):
    """The picture with the hues near one turned by an angle; others stay."""
    hsv = np.asarray(picture.convert("HSV")).copy()
    own = hsv[..., 0].astype(float) * 360 / 255
    near = np.abs((own - hue + 180) % 360 - 180) <= 40
    hsv[..., 0] = np.where(near, (hsv[..., 0].astype(int) + round(turn * 255 / 360)) % 255, hsv[..., 0])
    return Image.fromarray(hsv, "HSV").convert("RGB")


def turn_to(colour, hue):
    """The angle from a hue to a named colour's, in [-180, 180)."""
    return (COLOURS[colour] - hue + 180) % 360 - 180


def recolour(picture, turn):
    """The picture with all hues turned by an angle."""
    hsv = np.asarray(picture.convert("HSV")).copy()
    hsv[..., 0] = (hsv[..., 0].astype(int) + round(turn * 255 / 360)) % 255
    return Image.fromarray(hsv, "HSV").convert("RGB")


def colour_of(hue):
    """The named colour that a hue bears, or None."""
    nearest = min(COLOURS, key=lambda c: abs(turn_to(c, hue))) if hue is not None else None
    return nearest if nearest and abs(turn_to(nearest, hue)) <= NEAR else None


def takes(picture, hue, colour):
    """Whether the main part turned to a colour would bear its name: dark yellow is olive, dark orange and pale
    red are brown and pink."""
    hsv = np.asarray(picture.convert("HSV")).astype(float)
    part = (np.abs((hsv[..., 0] * 360 / 255 - hue + 180) % 360 - 180) <= 40) & (hsv[..., 1] > 0.2 * 255)
    saturation, value = (float(np.median(hsv[..., k][part])) / 255 for k in (1, 2))
    if colour in ("yellow", "orange"):
        return value > 0.75 and saturation > 0.4
    return saturation > 0.45 if colour == "red" else value > 0.4
