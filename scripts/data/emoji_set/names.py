"""Names of drawings in the icon sets, and the concepts they stand for."""
import json
import re

# Firefox OS's own names, for emoji that it names otherwise than Unicode does.
FIREFOX = {
    "2hearts": "two hearts", "anguish": "anguished face", "asiaaustraliaglobe": "globe showing asia-australia",
    "americasglobe": "globe showing americas", "europeafricaglobe": "globe showing europe-africa",
    "banknotedollar": "dollar banknote", "banknoteeuro": "euro banknote", "banknotepound": "pound banknote",
    "banknoteyen": "yen banknote", "blackpushpin": "pushpin", "blackskullcrossbones": "skull and crossbones",
    "blonde": "person: blond hair", "bunny": "rabbit face", "bunnyside": "rabbit", "cat": "cat face", "catside": "cat",
    "dog": "dog face", "dogside": "dog", "pig": "pig face", "pigside": "pig", "mouse": "mouse face", "mouseside": "mouse",
    "tiger": "tiger face", "tigerside": "tiger", "leopardside": "leopard", "dragonhead": "dragon face", "dragonside": "dragon",
    "cellphone": "mobile phone", "chartdownwardstrend": "chart decreasing", "chartupwardstrend": "chart increasing",
    "chartupwardstrendyen": "chart increasing with yen", "chilipepper": "hot pepper", "confetti": "confetti ball",
    "crying": "crying face", "loudlycrying": "loudly crying face", "dissapointedrelief": "sad but relieved face",
    "evergreen": "evergreen tree", "fallingleaf": "fallen leaf", "leaffluttering": "leaf fluttering in wind",
    "fishcakeswirl": "fish cake with swirl", "fistedhand": "oncoming fist", "flexbicep": "flexed biceps",
    "forkknife": "fork and knife", "frontfacingchick": "front-facing baby chick", "gma": "old woman", "gpa": "old man",
    "grineyes": "grinning face with smiling eyes", "grinsquint": "grinning squinting face",
    "grinsweat": "grinning face with sweat", "grintears": "face with tears of joy", "hampster": "hamster",
    "heartarrow": "heart with arrow", "heartblue": "blue heart", "heartgreen": "green heart",
    "heartpurple": "purple heart", "heartyellow": "yellow heart", "heels": "high-heeled shoe",
    "kissclosedeyes": "kissing face with closed eyes", "kisseyes": "kissing face with smiling eyes",
    "lockandkey": "locked with key", "mansshirt": "t-shirt", "mensshoe": "man’s shoe", "womansshirt": "woman’s clothes",
    "monkeyhear": "hear-no-evil monkey", "monkeysee": "see-no-evil monkey", "monkeyspeak": "speak-no-evil monkey",
    "notebookdecorativecover": "notebook with decorative cover", "openmailboxlowered": "open mailbox with lowered flag",
    "openmailboxraised": "open mailbox with raised flag", "closedmailboxlowered": "closed mailbox with lowered flag",
    "closedmailboxraised": "closed mailbox with raised flag", "perservere": "persevering face", "pigsnout": "pig nose",
    "present": "wrapped gift", "saggitarius": "sagittarius", "sandals": "woman’s sandal",
    "screamfear": "face screaming in fear", "silhouetteohjapan": "map of japan", "smileeyes": "smiling face with smiling eyes",
    "snowmountains": "snow-capped mountain", "speechbubble": "speech balloon", "thoughtbaloon": "thought balloon",
    "spurtingwhale": "spouting whale", "studiomic": "studio microphone", "sunraincloud": "sun behind rain cloud",
    "stormcloud": "cloud with lightning", "sweatsplash": "sweat droplets", "tennisball": "tennis",
    "tongueoutwink": "winking face with tongue", "toykotower": "tokyo tower", "turban": "person wearing turban",
    "videocasette": "videocassette", "waningbibbousmoon": "waning gibbous moon", "winking": "winking face",
    "rightspeaker3soundwaves": "speaker high volume", "manltepiececlock": "mantelpiece clock",
    "leftmagnifyingglass": "magnifying glass tilted left", "rightmagnifyingglass": "magnifying glass tilted right",
    "chineseflag": "flag: china", "greatbritainflag": "flag: united kingdom", "italianflag": "flag: italy",
    "koreaflag": "flag: south korea", "russianflag": "flag: russia", "spanishflag": "flag: spain",
    "franceflag": "flag: france", "japanflag": "flag: japan",
}
# What it draws beside the emoji; everything else of the interface kind is left out.
FIREFOX_OWN = {
    "acorn": "acorn", "foxcrying": "crying fox", "foxgrin": "grinning fox", "foxheart": "fox with heart eyes",
    "foxkissing": "kissing fox", "foxpouting": "pouting fox", "foxsmiling": "smiling fox",
    "foxtearofjoy": "fox with tears of joy", "foxweary": "weary fox", "foxwry": "wry fox", "bouquetofflowers": "bunch of flowers",
    "harddisk": "hard disk", "pinkwallet": "pink wallet", "portablestereo": "portable stereo", "waitress": "waitress",
    "makeupbag": "makeup bag", "oldpersonalcomputer": "old computer",
}
STREAMLINE = {
    "amusing-face": None, "amazed-face": None, "crazy-face": "zany face", "determined-face": None,
    "exclamation-mark": "red exclamation mark", "game-dice": "game die", "grinning-cat-face": "grinning cat",
    "kissing-cat-face": "kissing cat", "man-in-suit-levitating": "person in suit levitating", "red-wine-glass": "wine glass",
    "school-backpack": "backpack", "smiling-cat-face-with-heart-eyes": "smiling cat with heart-eyes", "2": None,
    "white-wine-glass": None,
}
FLAGS = {"macedonia": "north macedonia", "swaziland": "eswatini", "turkey": "türkiye", "macau sar china": "macao sar china"}
OTHER = {"a-button": "a button (blood type)", "b-button": "b button (blood type)", "ab-button": "ab button (blood type)",
         "o-button": "o button (blood type)", "exclamation-mark": "red exclamation mark",
         "smiling-cat-face-with-heart-eyes": "smiling cat with heart-eyes"}


def slug(text):
    text = re.sub(r"[’'“”.]", "", text.lower().replace("&", "and"))
    for letter, plain in zip("ñéãåçíôü", "neaaciou"):
        text = text.replace(letter, plain)
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


class Names:
    """Finds the emoji (its hex code as emojibase writes it) that a drawing's name means."""

    def __init__(self, roots):
        base = roots["emojibase-data"] / "en"
        data = json.loads((base / "data.json").read_text())
        plain = {e["hexcode"].replace("-FE0F", ""): e["hexcode"] for e in data}
        self.codes, self.phrases = {}, {}  # slug -> code; code -> other names
        self.labels = {e["label"].lower(): e["hexcode"] for e in data}

        def put(text, code, said=True):
            self.codes.setdefault(slug(text), code)
            phrase = text.lower().replace("_", " ").replace("-", " ")
            if said and re.fullmatch(r"[a-z][a-z ]{2,29}", phrase):
                self.phrases.setdefault(code, {})[phrase] = True

        for e in data:
            put(e["label"].replace("flag: ", "flag ") if e.get("group") == 9 else e["label"], e["hexcode"], said=False)
        self.fluent = {}
        for code, name in json.loads((roots["@iconify-json/fluent-emoji-flat"] / "chars.json").read_text()).items():
            code = plain.get(code.upper().replace("-FE0F", ""))
            if code:
                self.fluent.setdefault(name, code)
                put(name, code, said=not name.startswith("flag-"))
        for kind in ("cldr", "emojibase", "joypixels", "emojibase-legacy", "iamcal", "github"):
            for code, names in json.loads((base / f"shortcodes/{kind}.json").read_text()).items():
                for name in [names] if isinstance(names, str) else names:
                    put(name, code, said=kind != "cldr")
        for e in json.loads((roots["emoji-datasource-google"] / "emoji.json").read_text()):
            code = plain.get(e["unified"].replace("-FE0F", ""))
            if code and e["name"]:
                put(e["name"], code, said=not re.search(r"^(black|white|heavy|squared|negative|circled)\b", e["name"].lower()))
        self.squashed = {}
        for text, code in self.codes.items():
            self.squashed.setdefault(text.replace("-", ""), code)

    def find(self, package, name, aliases):
        """The code of an icon of an Iconify package, or None."""
        if name == "pistol":  # today's is a toy
            return None
        if package == "fluent-emoji-flat":
            return self.fluent.get(name)
        bare = re.sub(r"-\d+$", "", name) if package == "streamline-emojis" else name
        special = {"fxemoji": FIREFOX, "streamline-emojis": STREAMLINE}.get(package, OTHER)
        if bare in special:
            return self.labels.get(special[bare])
        if flag := re.fullmatch(r"flag-for-(?:flag-)?(.+)", name):
            country = flag.group(1)
            country = slug(FLAGS.get(country.replace("-", " "), country))
            return self.codes.get(f"flag-{country}") or self.codes.get(country)
        if package == "fxemoji":
            if hour := re.fullmatch(r"clock(\d+)(oclock|thirty)", name):
                words = "one two three four five six seven eight nine ten eleven twelve".split()
                hour, half = words[int(hour.group(1)) - 1], hour.group(2)
                return self.labels.get(f"{hour} o’clock" if half == "oclock" else f"{hour}-thirty")
            return self.squashed.get(name.replace("-", ""))
        for candidate in (name, *aliases, bare):
            if candidate in self.codes:
                return self.codes[candidate]
        return None


def own_name(package, name):
    """The concept of a drawing that no emoji stands for, or None."""
    return "pistol" if name == "pistol" else FIREFOX_OWN.get(name) if package == "fxemoji" else None
