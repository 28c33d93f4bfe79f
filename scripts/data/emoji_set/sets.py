"""The sets of pictures: what is drawn, held out, recoloured and withheld."""
import json
import re

import numpy as np

from emoji_set import clipart, leaks
from emoji_set.names import Names, own_name, slug
from emoji_set.pictures import (COLOURS, NEAR, colour_of, dominant_hue, draw, draw_icon, is_black, is_empty, recolour,
                                single_hue, takes, turn_hue, turn_to)
from emoji_set.words import Captions, concepts, share, synonyms, uncoloured

STYLES = ("noto", "twemoji", "fluent")
# Style, Iconify package.
ICONS = {"flat": "fluent-emoji-flat", "emojione": "emojione", "firefox": "fxemoji", "streamline": "streamline-emojis",
         "android": "noto-v1"}
PAIR_SHARE = 0.06  # of (concept, style) pairs held out
CONCEPT_SHARE = 0.05  # of the concepts that may be held out, in all styles but one
VARIANTS = 4  # recoloured forms of an object in an old style
MORE_VARIANTS = 4  # the same, in a new style or by its main part alone


class Item:
    """A picture with the line that describes it; `base` is the file it was recoloured from."""

    def __init__(self, picture, file, captions, concept, style, colour, base=None):
        self.picture, self.file, self.base = picture, file, base
        self.line = {"file": file, "captions": captions, "concept": concept, "style": style, "colour": colour}

    concept = property(lambda self: self.line["concept"])
    style = property(lambda self: self.line["style"])


def picture_file(roots, style, code):
    """The picture of an emoji in one of the three styles of old, if the style has it."""
    code = code.lower()
    without = "-".join(p for p in code.split("-") if p != "fe0f")
    folder, ending = {
        "noto": (roots["emoji-datasource-google"] / "img/google/64", "png"),
        "twemoji": (roots["emoji-datasource-twitter"] / "img/twitter/64", "png"),
        "fluent": (roots["@lobehub/fluent-emoji-3d"] / "assets", "webp"),
    }[style]
    for name in (code, f"{code}-fe0f", without):
        path = folder / f"{name}.{ending}"
        if path.is_file():
            return path
    return None


def icons(roots, names, by_code):
    """(style, concept or own name, file name's stem, picture) of the Iconify sets."""
    for style, package in ICONS.items():
        sheet = json.loads((roots[f"@iconify-json/{package}"] / "icons.json").read_text())
        aliases, seen = {}, set()
        for alias, target in sheet.get("aliases", {}).items():
            aliases.setdefault(target["parent"], []).append(alias)
        found = []
        for name in sorted(sheet["icons"]):
            concept = by_code.get(names.find(package, name, aliases.get(name, ())))
            own = own_name(package, name)
            if "skin-tone" not in name and (concept or own):
                found.append((concept is not None and slug(concept.name) != name, name, concept, own))
        # Of several drawings of one concept the one of its very name.
        for _, name, concept, own in sorted(found, key=lambda f: f[:2]):
            number = re.search(r"-(\d+)$", name) if style == "streamline" else None
            stem = (concept.code.lower() if concept else own.replace(" ", "_")) + f"-{style}"
            stem += f"-{number.group(1)}" if number else ""
            if stem in seen:
                continue
            picture = draw_icon(sheet["icons"][name], sheet)
            if is_empty(picture) or picture.tobytes() in seen or is_black(picture) and not (concept and "black" in concept.name):
                continue
            seen |= {stem, picture.tobytes()}
            yield style, concept or own, stem, picture


def held_colours(objects, names):
    """The colours of each object's name in the order of their choice; the first is held out."""
    found = {}
    for name in sorted(objects):
        order = sorted(COLOURS, key=lambda colour: share("colour", name, colour))
        free = [colour for colour in order if f"{colour} {name}" not in names]
        if name and free:
            found[name] = free
    return found


class Sets:
    def __init__(self, roots, prompts):
        self.roots = roots
        self.everything = concepts(roots)
        self.by_code = {c.code: c for c in self.everything}
        self.names = Names(roots)
        found = synonyms(self.everything, self.names)
        self.named = {code: named for code, (named, _) in found.items()}
        self.others = {code: named + tags for code, (named, tags) in found.items()}
        self.prompts = prompts
        self.sets = {name: [] for name in ("train", "more", "heldout_pairs", "heldout_colours", "heldout_concepts",
                                           "heldout_concepts_more", "withheld")}

    def make(self):
        old = {}  # (concept name, style) -> (picture, code), of the styles of old
        held = {}  # concept name -> styles of its held-out pairs
        hues = {}  # uncoloured name -> {style: (picture, hue, code)}
        for c in self.everything:
            if c.gendered:
                continue
            pictures = {s: draw(f) for s in STYLES if (f := picture_file(self.roots, s, c.code))}
            out = {s for s in pictures if share("pair", c.code, s) < PAIR_SHARE}
            held[c.name] = set() if len(pictures) < 2 or len(out) == len(pictures) else out
            for style, picture in pictures.items():
                old[c.name, style] = picture
                hue = dominant_hue(picture) if c.plain else None
                if hue is not None and style not in held[c.name]:
                    hues.setdefault(uncoloured(c.name), {}).setdefault(style, (picture, hue, c))
        new = list(icons(self.roots, self.names, self.by_code))
        known = {w for c in self.everything for t in (c.name, *c.tags) for w in re.findall("[a-z]+", t)}
        drawn = list(clipart.drawings(self.roots["openclipart"], known))

        names = {c.name for c in self.everything if not c.gendered}
        objects = {uncoloured(c.name) for c in self.everything if c.plain and not c.gendered}
        objects |= {uncoloured(title) for _, title, _ in drawn}
        colours = held_colours(objects, names)
        # An object has a colour held out if it has it in the styles of old.
        says = {name: {colours[name][0]} for name, styles in hues.items() if name in colours and len(styles) > 1}
        for c in self.everything:
            if len(hues.get(name := uncoloured(c.name), ())) > 1 and name in colours and c.plain:
                for other in map(uncoloured, self.others[c.code]):
                    says.setdefault(other, set()).add(colours[name][0])
        self.captions = Captions(self.prompts, says)
        self.old_styles(old, held, hues, colours)
        self.more_emoji(new, old, held, hues, colours)
        self.more_clipart(drawn, colours)
        self.hold_concepts(held)
        self.withhold()
        return self.sets

    def natural(self, concept, style, picture, file):
        hue = single_hue(picture) if concept.plain else None
        own = next((w for w in concept.name.split() if w in COLOURS), None)
        captions = self.captions.natural(concept, style, self.others[concept.code], colour_of(hue), file)
        return Item(picture, file, captions, concept.name, style, own)

    def turned(self, picture, file, name, colour, style, others):
        captions = self.captions.recoloured(name, colour, style, others, file)
        base = file.rsplit("-", 1)[0] + ".png"
        return Item(picture, file, captions, f"{colour} {name}", style, colour, base)

    def old_styles(self, old, held, hues, colours):
        by_name = {c.name: c for c in self.everything}
        for (name, style), picture in old.items():
            c = by_name[name]
            split = "heldout_pairs" if style in held[name] else "train"
            self.sets[split].append(self.natural(c, style, picture, f"{c.code.lower()}-{style}.png"))
        for name, styles in sorted(hues.items()):
            if name not in colours or len(styles) < 2:
                continue
            for style, (picture, hue, c) in styles.items():
                for colour in colours[name][: 1 + VARIANTS]:
                    turn = turn_to(colour, hue)
                    if abs(turn) > NEAR:
                        split = "heldout_colours" if colour == colours[name][0] else "train"
                        self.sets[split].append(self.turned(recolour(picture, turn), f"{c.code.lower()}-{style}-{colour}.png",
                                                            name, colour, style, self.named[c.code]))

    def more_emoji(self, new, old, held, hues, colours):
        for style, concept, stem, picture in new:
            if isinstance(concept, str):
                captions = self.captions.listed([f"{concept}, {style} style"] * 3 + [f"{style} style {concept}"] + [concept] * 4)
                self.sets["more"].append(Item(picture, f"{stem}.png", captions, concept, style, None))
                continue
            self.sets["more"].append(self.natural(concept, style, picture, f"{stem}.png"))
            self.turn_main_part(concept, style, stem, picture, colours)
        # Objects of the styles of old that have no single hue, but a main part of one.
        for c in self.everything:
            done = hues.get(uncoloured(c.name), {})
            for style in STYLES:
                if (c.name, style) in old and style not in held[c.name] and not (style in done and len(done) > 1):
                    self.turn_main_part(c, style, f"{c.code.lower()}-{style}", old[c.name, style], colours)

    def turn_main_part(self, c, style, stem, picture, colours):
        name = uncoloured(c.name)
        hue = single_hue(picture) if c.plain and name in colours else None
        if hue is None:
            return
        for colour in sorted(self.others_than(hue, picture, name, colours), key=lambda o: share("variant", name, style, o))[:MORE_VARIANTS]:
            self.sets["more"].append(self.turned(turn_hue(picture, hue, turn_to(colour, hue)), f"{stem}-{colour}.png",
                                                 name, colour, style, self.named[c.code]))

    def others_than(self, hue, picture, name, colours):
        """The colours that an object of one hue may be turned to."""
        return [o for o in colours[name]
                if self.captions.free(o, name) and abs(turn_to(o, hue)) > NEAR and takes(picture, hue, o)]

    def more_clipart(self, drawn, colours):
        by_name = {c.name: c for c in self.everything}
        called = {}
        for c in self.everything:
            for phrase in (c.name, *self.others[c.code]):
                called.setdefault(phrase, []).append(c)
        counts = {}
        for _, title, picture in drawn:
            name = uncoloured(title)
            own = next((w for w in title.split() if w in COLOURS), None)
            if not name or own and not self.captions.free(own, name):
                continue
            counts[title] = counts.get(title, 0) + 1
            stem = f"{re.sub('[^a-z]+', '_', title)}_{counts[title]}-clipart"
            same = by_name.get(title) or (called[title][0] if len(called.get(title, ())) == 1 else None)
            head = title.split()[-1]
            styled = [f"{title}, clipart style"] * 3 + [f"clipart style {title}"] * 2
            if head != title and head in called:
                styled.append(f"{head}, clipart style")
            hue = single_hue(picture)
            colour = colour_of(hue)
            if colour and name == title and self.captions.free(colour, name):
                styled.append(f"{colour} {title}, clipart style")
            bare = [] if same else [title, title, title]
            concept = same.name if same else title
            captions = self.captions.listed(styled + bare)
            self.sets["more"].append(Item(picture, f"{stem}.png", captions, concept, "clipart", own))
            if hue is None or name not in colours:
                continue
            others = self.named[same.code] if same else ()
            for colour in sorted(self.others_than(hue, picture, name, colours), key=lambda o: share("variant", stem, o))[:3]:
                self.sets["more"].append(self.turned(turn_hue(picture, hue, turn_to(colour, hue)), f"{stem}-{colour}.png",
                                                     name, colour, "clipart", others))

    def hold_concepts(self, held):
        """Whole concepts go out, in all styles but one; none with a held-out pair or recoloured forms in the old
        styles, none that a natural prompt names, no flags (all styles draw the same), none whose remaining picture is too near to one that goes."""
        natural = [i for name in ("train", "more") for i in self.sets[name] if i.base is None]
        rows = leaks.features([i.picture for i in natural])
        of = {}  # concept -> {style: [index]}
        for at, item in enumerate(natural):
            of.setdefault(item.concept, {}).setdefault(item.style, []).append(at)
        old = {c: {s: rows[at[0]] for s, at in styles.items() if s in STYLES} for c, styles in of.items()}
        every = {c: {s: rows[at[0]] for s, at in styles.items()} for c, styles in of.items()}
        self.between = {"three styles": leaks.between_styles(old), "all styles": leaks.between_styles(every)}
        self.nearest_allowed = float(np.percentile(self.between["three styles"], 1))
        turned = {uncoloured(i.concept) for name in ("train", "heldout_colours") for i in self.sets[name] if i.base}
        chosen = {}
        for c in self.everything:
            styles = of.get(c.name, {})
            if c.gendered or c.group == 9 or held.get(c.name) or uncoloured(c.name) in turned or len(styles) < 3:
                continue
            if sum(s in STYLES for s in styles) < 2 or share("concept", c.code) >= CONCEPT_SHARE:
                continue
            if any(f" {c.name} " in f" {prompt} " for prompt in self.prompts):
                continue
            stays = min(sorted(styles), key=lambda s: share("stays", c.code, s))
            stay, go = styles[stays], [at for s, ats in styles.items() if s != stays for at in ats]
            if leaks.distances(rows[stay], rows[go]).min() >= self.nearest_allowed:
                chosen[c.name] = stays
        self.chosen = chosen
        for name in ("train", "more"):
            kept = []
            for item in self.sets[name]:
                # A recoloured form goes with its picture, and is no use as a held-out one.
                concept = item.concept if item.base is None else self.object_of(item)
                if concept in chosen and item.style != chosen[concept]:
                    if item.base is None:
                        self.sets["heldout_concepts" if item.style in STYLES else "heldout_concepts_more"].append(item)
                else:
                    kept.append(item)
            self.sets[name] = kept

    def object_of(self, item):
        """The concept that a recoloured emoji was drawn from."""
        code = item.base.rsplit(f"-{item.style}", 1)[0].upper()
        return self.by_code[code].name if code in self.by_code else item.concept.split(" ", 1)[1]

    def withhold(self):
        """Takes what lies too near to a held-out picture out of training, and what was recoloured from it."""
        queries = [(name, i) for name in self.sets if name.startswith("heldout") for i in self.sets[name]]
        far = leaks.features([i.picture for _, i in queries])
        self.report = {
            "distance": "root mean square over 16x16, 8x8 and 4x4 cell means of 64x64 sRGB, levels weighted alike, in 8-bit steps",
            "nearest_allowed": round(self.nearest_allowed, 4),
            "percentiles": {name: {str(p): round(float(np.percentile(d, p)), 4) for p in (0, 1, 5, 25, 50, 75, 100)}
                            for name, d in self.between.items()},
            "removed": {},
        }
        nearest = np.full(len(queries), np.inf)
        nearest_file = [""] * len(queries)
        left = set()  # files of both sets
        for name in ("train", "more"):
            items = self.sets[name]
            gone = {}
            distance = np.concatenate([leaks.distances(leaks.features([i.picture for i in items[at:at + 1000]]), far)
                                       for at in range(0, len(items), 1000)])
            for at, item in enumerate(items):
                if distance[at].min() < self.nearest_allowed:
                    gone[item.file] = "near"
            without = left | gone.keys()
            for item in items:
                if item.base in without and item.file not in gone:
                    gone[item.file] = "recoloured from one"
            left |= gone.keys()
            stays = np.array([i.file not in gone for i in items])
            where = np.where(stays[:, None], distance, np.inf)
            for q, at in enumerate(where.argmin(0)):
                if where[at, q] < nearest[q]:
                    nearest[q], nearest_file[q] = where[at, q], f"{name}/{items[at].file}"
            if name == "train":
                self.sets["withheld"] = [i for i in items if i.file in gone]
            self.sets[name] = [i for i in items if i.file not in gone]
            self.report["removed"][name] = {why: sorted(f for f, w in gone.items() if w == why)
                                            for why in ("near", "recoloured from one")}
        self.report["heldout"] = {f"{name}/{item.file}": {"distance": round(float(nearest[q]), 4), "nearest": nearest_file[q]}
                                  for q, (name, item) in enumerate(queries)}
