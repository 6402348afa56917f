"""The collection `emoji`: Noto Color Emoji rendered on white, named as in Unicode CLDR.

    emoji-NNNN.tar   WebDataset shards: KEY.png, KEY.txt (the name), KEY.json (names by language)

KEY is the emoji's code points in hexadecimal, joined by underscores.
"""

import io
import json
import random
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from urllib.request import urlopen

from PIL import Image, ImageDraw, ImageFont, features

from dalle_mini_impl.data.collections.detect import DataError

NAMES_URL = "https://unicode.org/Public/emoji/latest/emoji-test.txt"
NAMES_FILE = Path("/usr/share/unicode/emoji/emoji-test.txt")
"""Where Debian's package unicode-data puts the same file."""
FONT_FILE = "NotoColorEmoji.ttf"
FONT_FOLDERS = (
    "~/.local/share/fonts",
    "~/.fonts",
    "~/Library/Fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/Library/Fonts",
)
STRIKE = 109
"""The one size of the bitmaps in the font."""
BOX = 136, 128
"""Width and height of these bitmaps."""
SIDE = 64
SHARDS = 4
ENTRY = re.compile(r"^([0-9A-F ]+?)\s*;\s*fully-qualified\s*#\s*\S+\s+E[\d.]+\s+(.+?)\s*$", re.M)


def build_emoji(out: Path, font: Path | None = None, names: Path | None = None) -> int:
    """Write the shards to `out` and return the number of emoji.

    font: found among the installed ones if not given. names: Unicode's emoji-test.txt; if not
    given, the installed one, or else the one on unicode.org. DataError where there is none.
    """
    titles = parse_names(_names_text(names), str(names or NAMES_URL))
    images = render(titles, font or find_font())
    keys = sorted(images)
    random.Random(0).shuffle(keys)  # So that each shard holds emoji of all kinds.
    for number in range(SHARDS):
        with tarfile.open(out / f"emoji-{number:04d}.tar", "w") as shard:
            for key in keys[number::SHARDS]:
                content = io.BytesIO()
                images[key].save(content, "PNG")
                _add(shard, f"{key}.png", content.getvalue())
                _add(shard, f"{key}.txt", titles[key].encode())
                _add(shard, f"{key}.json", json.dumps({"en": titles[key]}).encode())
    return len(keys)


def parse_names(text: str, origin: str) -> dict[str, str]:
    """The names in emoji-test.txt by key, in words only."""
    names = {
        "_".join(f"{int(code, 16):x}" for code in codes.split()): _words(name)
        for codes, name in ENTRY.findall(text)
    }
    if not names:
        raise DataError(f"{origin}: holds no emoji; give Unicode's emoji-test.txt with --names")
    return names


def _words(name: str) -> str:
    """A name as a caption: `flag: Congo - Kinshasa` is `Congo-Kinshasa`."""
    return re.sub("[:,“”]", "", name.removeprefix("flag: ")).replace(" - ", "-")


def find_font() -> Path:
    """The installed Noto Color Emoji; DataError if there is none."""
    for folder in FONT_FOLDERS:
        found = sorted(Path(folder).expanduser().rglob(FONT_FILE))
        if found:
            return found[0]
    raise DataError(
        f"no {FONT_FILE} in {', '.join(FONT_FOLDERS)}: install it (Debian: fonts-noto-color-emoji) "
        "or download it from https://github.com/googlefonts/noto-emoji and name it with --font"
    )


def render(names: Mapping[str, str], font: Path) -> dict[str, Image.Image]:
    """The emoji that the font has by key, on white; DataError if the font has no color bitmaps."""
    try:
        face = ImageFont.truetype(str(font), STRIKE)
    except OSError as error:
        raise DataError(
            f"--font {font}: {error}; it must be a Noto Color Emoji with bitmaps, {FONT_FILE}"
        ) from error
    if not features.check("raqm"):
        raise DataError(
            "Pillow cannot lay out emoji of several characters here, as libfribidi is missing; "
            "install it (Debian: libfribidi0)"
        )
    images = {}
    for key in names:
        text = "".join(chr(int(code, 16)) for code in key.split("_"))
        image = Image.new("RGB", BOX, "white")
        # More than one glyph: the font draws the parts of an emoji that it does not have.
        if face.getlength(text) <= 1.5 * BOX[0]:
            ImageDraw.Draw(image).text((0, 0), text, font=face, embedded_color=True)
        if image.getextrema() != ((255, 255),) * 3:
            images[key] = _on_square(image)
    if not images:
        raise DataError(f"--font {font}: it has no color bitmaps of emoji; use {FONT_FILE}")
    return images


def _on_square(image: Image.Image) -> Image.Image:
    square = Image.new("RGB", (BOX[0], BOX[0]), "white")
    square.paste(image, (0, (BOX[0] - BOX[1]) // 2))
    return square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _names_text(names: Path | None) -> str:
    file = names or NAMES_FILE
    if names is not None or file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"--names {file}: not a readable file ({error})") from error
    try:
        with urlopen(NAMES_URL, timeout=30) as answer:
            return str(answer.read().decode("utf-8"))
    except OSError as error:
        raise DataError(
            f"{NAMES_URL}: could not be loaded ({error}); give the file with --names, or install "
            "it (Debian: unicode-data)"
        ) from error


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))
