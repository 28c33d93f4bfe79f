"""The packages that the pictures come from, checked against pinned hashes."""
import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

PACKAGES = {
    "emoji-datasource-google@16.0.0": "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
    "emoji-datasource-twitter@16.0.0": "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
    "@lobehub/fluent-emoji-3d@1.1.0": "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    "emojibase-data@17.0.0": "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    "@iconify-json/fluent-emoji-flat@1.2.6": "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    "@iconify-json/emojione@1.2.3": "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
    "@iconify-json/fxemoji@1.2.2": "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
    "@iconify-json/streamline-emojis@1.2.4": "iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
    "@iconify-json/noto-v1@1.2.5": "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
}
# Debian's package of the Open Clip Art Library 0.18.
CLIPART = "http://deb.debian.org/debian/pool/main/o/openclipart/openclipart-svg_0.18+dfsg-19_all.deb"
CLIPART_SHA256 = "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"


def fetch(folder):
    """The packages, unpacked: name to folder."""
    if not shutil.which("npm"):
        sys.exit("emoji: error: npm is missing; install Node.js's npm first")
    roots = {}
    for package, sha512 in PACKAGES.items():
        name = package.rsplit("@", 1)[0]
        root = folder / name.replace("/", "+").lstrip("@")
        if not root.is_dir():
            npm(package, sha512, folder, root)
        roots[name] = root
    roots["openclipart"] = folder / "openclipart"
    if not roots["openclipart"].is_dir():
        clipart(folder, roots["openclipart"])
    return roots


def npm(package, sha512, folder, root):
    with tempfile.TemporaryDirectory(dir=folder) as work:
        run = subprocess.run(["npm", "pack", "--silent", package], cwd=work, capture_output=True, text=True)
        packed = list(Path(work).glob("*.tgz"))
        if run.returncode or len(packed) != 1:
            sys.exit(f"emoji: error: npm pack {package} failed:\n{run.stderr.strip()}")
        found = base64.b64encode(hashlib.sha512(packed[0].read_bytes()).digest()).decode()
        if found != sha512:
            sys.exit(f"emoji: error: {package}: sha512 is {found}, expected {sha512}")
        with tarfile.open(packed[0]) as tar:
            tar.extractall(Path(work) / "out", filter="data")
        (Path(work) / "out" / "package").rename(root)


def clipart(folder, root):
    try:
        with urllib.request.urlopen(CLIPART, timeout=60) as answer:
            deb = answer.read()
    except OSError as error:
        sys.exit(f"emoji: error: {CLIPART}: {error}")
    found = hashlib.sha256(deb).hexdigest()
    if found != CLIPART_SHA256:
        sys.exit(f"emoji: error: {CLIPART}: sha256 is {found}, expected {CLIPART_SHA256}")
    with tempfile.TemporaryDirectory(dir=folder) as work:
        with tarfile.open(fileobj=io.BytesIO(member(deb, b"data.tar.xz"))) as tar:
            tar.extractall(Path(work) / "out", filter="data")
        (Path(work) / "out/usr/share/openclipart/svg").rename(root)


def member(deb, wanted):
    """A file of an ar archive: 60 bytes of header each, padded to even length."""
    at = 8
    while at + 60 <= len(deb):
        name, size = deb[at:at + 16].strip().rstrip(b"/"), int(deb[at + 48:at + 58])
        at += 60
        if name == wanted:
            return deb[at:at + size]
        at += size + size % 2
    sys.exit(f"emoji: error: {CLIPART}: holds no {wanted.decode()}")
