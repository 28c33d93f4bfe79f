"""Drawings of the Open Clip Art Library: those whose title says what they show."""
import html
import re

from emoji_set.pictures import draw_clipart, is_coloured_drawing

LEFT_OUT = ("computer/", "shapes/", "special/", "signs_and_symbols/", "geography/", "logos", "buttons", "unsorted/",
            "decorations/", "transportation/aiga", "transportation/roadsigns", "recreation/games/cards",
            "recreation/religion", "recreation/games/chess", "people/stickmen", "people/clothing/pantyhose", "buildings/plans")
# Words of titles that name no thing drawn: artists, sets, variants; and words of other languages.
NOISE = {"clipart", "clip", "art", "by", "icon", "icons", "remix", "remixed", "svg", "vector", "image", "picture", "drawing",
         "illustration", "symbol", "version", "ver", "simple", "generic", "various", "set", "template", "logo", "page",
         "cartoon", "body", "part", "clothing", "profile", "another", "colour", "color", "outline", "contour", "revisited", "new", "improved", "form", "architetto", "stylized"}
FOREIGN = {"di", "il", "la", "le", "con", "e", "un", "una", "de", "del", "della", "du", "des", "et", "au", "al", "da", "io", "per",
           "und", "mit", "el", "los", "las", "en", "y", "che", "nel", "alla", "lo", "gli", "sul", "donna", "uomo",
           "nonno", "leone", "casa", "verde", "paesaggio", "farfalla", "stagioni", "stara", "rondelle", "peperoncino", "cymru",
           "sauvetage", "olivier", "gauffre", "lumaca"}
DROPPED = {"bw", "contour", "outline", "silhouette", "silhouet", "blueprint", "map", "diagram", "plan", "etiquette", "various",
           "cliparts", "rules", "sexy", "nude", "naked", "text", "sign", "banner", "number", "frame", "border", "nicu", "buculei", "logo", "signs", "evolution", "gogh", "capsized",
           "dead", "hearth", "xbill", "cannabis", "presentation", "symbols", "scrathing", "golf", "liberty", "points"}


def title_of(text):
    """A short noun phrase, or None: what the drawing's own title says without its noise."""
    found = re.search(r"<dc:title[^>]*>([^<]*)</dc:title>", text)
    title = html.unescape(found.group(1)) if found else ""
    title = re.sub(r"([a-z])([A-Z])", r"\1 \2", title)
    title = re.sub(r"\([^)]*\)|\bb\s*(&|and|/)\s*w\b", " ", title).lower()
    words = re.findall(r"[a-z]+(?:'s)?", re.sub(r"[0-9_.-]+", " ", title))
    if not title.isascii() or DROPPED & set(words) or FOREIGN & set(words):
        return None
    words = [w for w in words if w not in NOISE and (len(w) > 2 or w in ("ox", "tv", "of", "in", "on"))]
    while words and words[-1] in ("of", "in", "on", "with", "and", "the", "from", "for"):
        words.pop()
    return " ".join(words) if 1 <= len(words) <= 4 else None


def keywords_of(text):
    found = (html.unescape(k).strip().lower() for k in re.findall(r"<rdf:li[^>]*>([^<]*)</rdf:li>", text))
    return {k for k in found if re.fullmatch(r"[a-z][a-z ]{2,20}", k)} - {"hash", "unsorted"}


def english(words, known):
    """Whether most words are ones that emoji, or keywords of several drawings, have: titles are in many languages."""
    return 2 * sum(any(form in known for form in (w, w.rstrip("s"), w + "s")) for w in words) >= len(words)


def drawings(root, known):
    """(file name, title, picture) of every drawing to keep, in the order of their paths."""
    files = []
    counts = {}
    for path in sorted(root.rglob("*.svg"), key=lambda p: p.relative_to(root).as_posix()):
        place = path.relative_to(root).as_posix()
        if place.startswith(LEFT_OUT):
            continue
        text = path.read_text(errors="replace")
        for keyword in keywords_of(text):
            counts[keyword] = counts.get(keyword, 0) + 1
        title = title_of(text)
        if title and "<text" not in text and "<image" not in text and len(text) < 600_000:
            files.append((path, place, title))
    known = known | {word for k, n in counts.items() if n >= 2 for word in k.split()}
    seen = set()
    for path, place, title in files:
        if not english(title.split(), known):
            continue
        picture = draw_clipart(path)
        if picture is None or not is_coloured_drawing(picture) or picture.tobytes() in seen:
            continue
        seen.add(picture.tobytes())
        yield place, title, picture
