"""Concepts, and what their pictures may be called."""
import hashlib
import json
import re

from emoji_set.pictures import COLOURS

# Every colour word of the names, to find an object's name without its colour.
COLOUR_WORDS = {*COLOURS, "brown", "black", "white", "grey", "gray", "light"}
SKIN = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
GENDER = re.compile(r"^(man|woman|men|women|boy|girl)\b[: ]*")


def share(*key):
    """A fixed number in [0, 1) for a key."""
    digest = hashlib.sha256("|".join(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def uncoloured(name):
    """The name without its colour words."""
    return " ".join(w for w in name.split() if w not in COLOUR_WORDS)


class Concept:
    """One emoji: code, name, tags, group of Unicode; whether it may be recoloured, whether it is gendered."""

    def __init__(self, entry, labels):
        label = entry["label"].lower()
        neutral = GENDER.sub("", label)
        self.code, self.group = entry["hexcode"], entry["group"]
        self.name = label.replace("flag: ", "flag of ").replace("keycap: ", "keycap ").replace(": ", " ").strip()
        self.gendered = neutral != label and (
            neutral in labels or "person" in neutral
            or any(f"{who}{neutral}" in labels for who in ("person ", "person: ", "people ")))
        words = set(self.name.split())
        self.tags = [t.lower() for t in entry.get("tags", [])
                     if t.lower() not in words and re.fullmatch(r"[a-z][a-z -]+", t.lower())]
        # Animals, food, travel, activities, objects; and the plain shapes that come in colours.
        self.plain = entry["group"] in (3, 4, 5, 6, 7) or bool(re.search(r"\b(heart|circle|square)$", self.name))


def concepts(roots):
    """Every emoji without a skin tone, in Unicode's order; of one name only the first."""
    data = json.loads((roots["emojibase-data"] / "en/data.json").read_text())
    data = [e for e in data if e.get("group") not in (None, 2)]  # 2: skin and hair components
    labels = {e["label"] for e in data}
    found = {}
    for entry in sorted(data, key=lambda e: e["order"]):
        if SKIN & set(entry["hexcode"].split("-")):
            continue
        concept = Concept(entry, labels)
        if not concept.gendered or concept.name not in found:
            found.setdefault(concept.name, concept)
    return list(found.values())


def synonyms(everything, names):
    """Other names of each concept, and its tags that may stand for it, by code: ones that belong to it, or to it and
    one other."""
    phrases = {}  # phrase -> codes that have it as a name
    tagged = {}  # phrase -> codes that have it at all
    own = {c.name for c in everything}
    for c in everything:
        for phrase in {c.name, *names.phrases.get(c.code, ())}:
            phrases.setdefault(phrase, set()).add(c.code)
        for phrase in {c.name, *c.name.split(), *c.tags, *names.phrases.get(c.code, ())}:
            tagged.setdefault(phrase, set()).add(c.code)
    found = {}
    for c in everything:
        if c.group == 9:
            found[c.code] = ([], [])
            continue
        colours = COLOUR_WORDS & set(c.name.split())

        def usable(candidates):
            bare = [p if colours else uncoloured(p) for p in candidates]
            return [p for p in dict.fromkeys(bare) if p and p not in own and COLOUR_WORDS & set(p.split()) <= colours]

        named = usable(p for p in names.phrases.get(c.code, ()) if len(phrases[p]) <= 2)
        head = c.name.split()[-1]
        tags = usable(t for t in (*c.tags, head) if c.plain and len(tagged[t]) <= 2 and len(t) > 2)
        found[c.code] = (named, [t for t in tags if t not in named])
    return found


def singular(phrase):
    return not re.search(r"(?<![su])s$", phrase)


def article(phrase):
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


class Captions:
    """Makes the lists of captions; never one that is a prompt of `prompts`, and never the held-out
    colour of an object, by whatever name: `held` has the colours of each name."""

    def __init__(self, prompts, held):
        self.prompts, self.held = prompts, held
        self.dropped = set()

    def free(self, colour, phrase):
        """Whether an object may be called so in a colour: no end of its name has that colour held out."""
        words = phrase.split()
        return not any(colour in self.held.get(" ".join(words[i:]), ()) for i in range(len(words)))

    def listed(self, captions):
        """Without the prompts; the first caption has a style and stays."""
        out = []
        for caption in captions:
            if re.sub(r"^an? ", "", caption) in self.prompts:
                self.dropped.add(caption)
            else:
                out.append(caption)
        return out

    def natural(self, concept, style, others, colour, key):
        """Of a picture as it was drawn; its object bears `colour`, or none."""
        name = concept.name
        picked = sorted(others, key=lambda o: share(key, o))[:4]
        tags = sorted(concept.tags[:6], key=lambda t: share(concept.code, style, t))[:2]
        styled = [f"{name}, {style} style"] * 3 + [f"{style} style {name}"]
        bare = [name, name]
        if tags:
            styled.append(f"{name}, {', '.join(tags)}, {style} style")
        for i, other in enumerate(picked):
            styled.append(f"{other}, {style} style" if i % 2 == 0 else f"{style} style {other}")
            bare.append(other)
        one = picked[0] if picked and share(key, "article") < 0.3 else name
        if concept.plain and singular(one):
            bare.append(article(one))
        if colour and concept.plain and not COLOUR_WORDS & set(name.split()):
            for i, phrase in enumerate((name, *picked[:2])):
                if self.free(colour, phrase) and self.free(colour, name):
                    styled.append(f"{colour} {phrase}, {style} style" if i < 2 else f"{style} style {colour} {phrase}")
                    bare.append(f"{colour} {phrase}")
        return self.listed(styled + bare)

    def recoloured(self, name, colour, style, others, key):
        """Of an object turned to a colour."""
        picked = sorted((o for o in map(uncoloured, others) if o and self.free(colour, o)), key=lambda o: share(key, o))[:3]
        coloured = f"{colour} {name}"
        styled = [f"{coloured}, {style} style"] * 2 + [f"{style} style {coloured}"]
        bare = [coloured, coloured]
        for i, other in enumerate(picked):
            styled.append(f"{colour} {other}, {style} style" if i % 2 == 0 else f"{style} style {colour} {other}")
            bare.append(f"{colour} {other}")
        one = picked[0] if picked and share(key, "article") < 0.3 else name
        if singular(one):
            bare.append(article(f"{colour} {one}"))
        return self.listed(styled + bare)
