"""Writes tokenizer_golden.json: captions and the ids that CLIP's rules give them.

Needs `pip install ftfy==6.3.1 regex`. Run it from the repository root:

    python tests/generate_tokenizer_golden.py

The tokeniser below follows the published rules with Python's own text functions,
independently of the Rust code that is tested against it.
"""

import gzip
import html
import json
from pathlib import Path

import ftfy
import ftfy.bad_codecs  # noqa: F401, makes the sloppy encodings known
import regex
from ftfy.chardata import CHARMAP_ENCODINGS

ROOT = Path(__file__).resolve().parent
VOCABULARY = ROOT.parent / "src/clip/vocabulary/bpe_simple_vocab_16e6.txt.gz"
FULL, SHORT = 49408, 1792
START, END = "<|startoftext|>", "<|endoftext|>"
PIECES = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)

CAPTIONS = [
    "",
    "teddy bear playing in the pool",
    "A Dog!  and   a cat &amp; mouse",
    "café ÉCLAIR 123",
    "it's 50% off",
    "“quoted” text",
    " \t\n ",
    "!! ! !!! ?!",
    "THEY'LL've 'S 't o'clock rock'n'roll don''t",
    "<|startoftext|> in <|ENDOFTEXT|> the <|endoftext> text<|endoftext|>s",
    "'\u017f long s <|\u017ftartoftext|>",
    "&ampx &notit; &notin; &amp;lt; &amp;amp;amp; &copy2021 &hellip &hearts;",
    "&#65;&#x42;&#0;&#128;&#x1F431;&#xD800;&#1;&#xfffe;&#99999999999;&#;&#x;",
    "<b>bold &amp; brave</b>\n&eacute; &lt;i&gt;",
    "&eacute; first line\n<p> &eacute;\nlast &amp;eacute; line",
    "&NotEqualTilde; &nGt; &DoubleLongLeftRightArrow; &unknownname; &Eacute;",
    "schÃ¶n â€” The Mona Lisa doesnâ€™t have eyebrows.",
    "sch\u00e3\u00b6n the mona lisa doesnâ€™t",
    "l’été à la “mode” … «déjà vu» ‘x’ „low‟ ‹y›",
    "Ｆｕｌｌ　ｗｉｄｔｈ ﬁne ﬂow oﬃce ﬅ ﬆ ｶﾞｷﾞ ￥１００",
    "Ĳsland ŉ Ǆ ǅ ǆ Ǳ",
    "zero\u200bwidth \ufeffbom \x1b[31mred\x1b[0m bell\x07 \x1b[1;4mx nul\x00l",
    "e\u0301a\u0308 A\u030a \u1e9b\u0323 \u212b \u2126 combining",
    "İstanbul ΟΔΟΣ ΣΑΣ. Σ straße ẞ ǅ",
    "½ ² ① ⅷ Ⅻ ٣٤ ४ 三 12345",
    "日本の山と海、中文 русский العربية हिन्दी ไทย עברית 한국어",
    "🐱👍🏽 an emoji 👩‍👩‍👧‍👦 family 🎉 🏴󠁧󠁢󠁷󠁬󠁳󠁿 ♥️",
    "\x85next\u2028line\u2029paragraph\rreturn\r\nboth\x0bvertical\x0cform",
    "no\u00a0break\u3000ideographic\u2003em\u1680ogham\u202fnarrow\u180emongolian",
    "\x1cseparators\x1d\x1e\x1f",
    "\x93smart\x94 \x80 \x81 quotes",
    "http://x.y/z?q=1&r=2 #hash @user a_b-c/d\\e f.o.o",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbb",
    "¡¿ § ¶ © ® ™ € £ ¥ ± × ÷ µ ° ª º",
    "\ufffd replacement \ufffe \U0010ffff \ue000 private",
    "\u0345 ypogegrammeni \u03b1\u0345",
    "\u061c\u200e\u200f\u202a\u202e\u2066 marks \u206a\ufffc",
    "Ⓐ ⓐ ª ʰ ˈ ៛ ‿ ⁀",
    "{json: [1, 2.5e-3]} $9.99 (50% off) -- ***",
    "cat " * 75,
    "cat " * 76,
]

# Read in a wrong encoding once or twice, whole or in part, in lower case or as they are.
DAMAGED = ["mädchen", "wait…", "à la “mode”", "łódź žluť", "ψυχή", "ёлка", "日本 🐱", "© 2021 ½"]


def damaged():
    for encoding in CHARMAP_ENCODINGS:
        for text in DAMAGED:
            once = text.encode().decode(encoding)
            yield once
            yield f"a {once.lower()} b {text}"
            yield once.encode().decode("sloppy-windows-1252").lower()
            yield once.replace("\xa0", " ").replace("\x81", "\ufffd")
    yield "m√§dchen"
    yield "wait‚Ä¶"
    yield "&EACUTE; &ntilde; &NTILDE; &szlig; &FRAC12;"


def byte_symbols():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update({byte: chr(256 + n) for n, byte in enumerate(others)})
    return symbols


class Tokenizer:
    def __init__(self, size):
        self.symbols = byte_symbols()
        lines = gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n")
        rules = [tuple(line.split()) for line in lines[1 : size - 514 + 1]]
        tokens = list(self.symbols.values())
        tokens += [symbol + "</w>" for symbol in tokens]
        tokens += ["".join(rule) for rule in rules] + [START, END]
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.ranks = {rule: rank for rank, rule in enumerate(rules)}

    def merge(self, word):
        if word in (START, END):
            return [word]
        parts = [self.symbols[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while True:
            pairs = set(zip(parts, parts[1:])) & self.ranks.keys()
            if not pairs:
                return parts
            pair = min(pairs, key=self.ranks.get)
            at = 0
            while at + 1 < len(parts):
                if (parts[at], parts[at + 1]) == pair:
                    parts[at : at + 2] = ["".join(pair)]
                at += 1

    def encode(self, text, positions=77):
        text = html.unescape(html.unescape(ftfy.fix_text(text.lower()))).strip()
        text = regex.sub(r"\s+", " ", text).strip().lower()
        words = PIECES.findall(text)
        tokens = [START, *(part for word in words for part in self.merge(word)), END]
        ids = [self.ids[token] for token in tokens]
        if len(ids) > positions:
            ids = ids[: positions - 1] + ids[-1:]
        return ids


def main():
    full, short = Tokenizer(FULL), Tokenizer(SHORT)
    rows = [
        json.dumps({"text": text, "ids": full.encode(text), "short_ids": short.encode(text)})
        for text in [*CAPTIONS, *damaged()]
    ]
    content = "[\n" + ",\n".join(rows) + "\n]\n"
    (ROOT / "tokenizer_golden.json").write_text(content, encoding="ascii")


if __name__ == "__main__":
    main()
