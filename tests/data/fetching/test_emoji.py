"""The emoji collection: names from Unicode's list, images from the font, shards of both."""

import io
import json
import tarfile

import pytest
from PIL import Image

from dalle_mini_impl.cli import main
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.fetching import emoji
from dalle_mini_impl.data.fetching.emoji import build_emoji, find_font, parse_names, render

LIST = """# group: Smileys & Emotion
1F600                                      ; fully-qualified     # 😀 E1.0 grinning face
2764                                       ; unqualified         # ❤ E0.6 red heart
2764 FE0F                                  ; fully-qualified     # ❤️ E0.6 red heart
0023 FE0F 20E3                             ; fully-qualified     # #️⃣ E0.6 keycap: #
1F1E8 1F1E9                                ; fully-qualified     # 🇨🇩 E2.0 flag: Congo - Kinshasa
1F468 1F3FE 200D 1F680  ; fully-qualified  # 👨🏾‍🚀 E4.0 man astronaut: medium-dark skin tone
1F21A                                      ; fully-qualified     # 🈚 E0.6 Japanese “free” button
"""
NAMES = {
    "1f600": "grinning face",
    "2764_fe0f": "red heart",
    "23_fe0f_20e3": "keycap #",
    "1f1e8_1f1e9": "Congo-Kinshasa",
    "1f468_1f3fe_200d_1f680": "man astronaut medium-dark skin tone",
    "1f21a": "Japanese free button",
}


def contents(folder):
    """Every file in the shards by its name."""
    found = {}
    for shard in sorted(folder.iterdir()):
        with tarfile.open(shard) as opened:
            found |= {member.name: opened.extractfile(member).read() for member in opened}
    return found


@pytest.fixture
def drawn(monkeypatch):
    """In place of the font: every emoji is a gray square."""
    gray = Image.new("RGB", (64, 64), "gray")
    monkeypatch.setattr(emoji, "render", lambda names, _: dict.fromkeys(names, gray))
    monkeypatch.setattr(emoji, "find_font", lambda: None)


def test_names_are_words_and_keys_are_code_points():
    assert parse_names(LIST, "list") == NAMES
    with pytest.raises(DataError, match=r"other\.txt: holds no emoji.*--names"):
        parse_names("nothing", "other.txt")


def test_the_shards_hold_image_and_name_of_each_emoji(drawn, tmp_path):
    (tmp_path / "list.txt").write_text(LIST, encoding="utf-8")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        assert build_emoji(tmp_path / folder, names=tmp_path / "list.txt") == len(NAMES)
    found = contents(tmp_path / "a")
    assert found == contents(tmp_path / "b")
    assert len(list((tmp_path / "a").iterdir())) == 4
    assert found["2764_fe0f.txt"] == b"red heart"
    assert json.loads(found["2764_fe0f.json"]) == {"en": "red heart"}
    assert Image.open(io.BytesIO(found["2764_fe0f.png"])).size == (64, 64)
    assert len(found) == 3 * len(NAMES)


def test_names_come_from_the_network_where_no_file_is(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(emoji, "NAMES_FILE", tmp_path / "none.txt")
    (tmp_path / "list.txt").write_text(LIST, encoding="utf-8")
    monkeypatch.setattr(emoji, "NAMES_URL", (tmp_path / "list.txt").as_uri())
    (tmp_path / "out").mkdir()
    assert build_emoji(tmp_path / "out") == len(NAMES)
    monkeypatch.setattr(emoji, "NAMES_URL", (tmp_path / "offline.txt").as_uri())
    with pytest.raises(DataError, match=r"offline\.txt: could not be loaded.*--names"):
        build_emoji(tmp_path / "out")


def test_the_font_draws_whole_emoji_and_leaves_out_others():
    try:
        font = find_font()
    except DataError as error:
        pytest.skip(str(error))
    names = {"2764_fe0f": "red heart", "1f468_1f3fe_200d_1f680": "man astronaut", "41": "A"}
    # Two hearts are two glyphs, like the parts of an emoji that the font does not have.
    images = render(names | {"2764_fe0f_2764_fe0f": "two hearts"}, font)
    assert images.keys() == {"2764_fe0f", "1f468_1f3fe_200d_1f680"}
    heart = images["2764_fe0f"].resize((1, 1)).getpixel((0, 0))
    assert heart[0] > heart[1] + 30
    assert images["2764_fe0f"].getpixel((0, 0)) == (255, 255, 255)


def test_mistakes_are_one_line_and_leave_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(emoji, "FONT_FOLDERS", ("fonts",))
    (tmp_path / "list.txt").write_text(LIST, encoding="utf-8")
    (tmp_path / "font.ttf").write_bytes(b"no font")
    for options, complaint in (
        ("--names missing.txt", "--names missing.txt: not a readable file"),
        ("--names list.txt", "no NotoColorEmoji.ttf in fonts: install it"),
        ("--names list.txt --font font.ttf", "--font font.ttf: unknown file format; it must be"),
        ("--out list.txt", "--out list.txt: exists already"),
    ):
        assert main(["fetch-data", "emoji", *options.split()]) == 2
        message = capsys.readouterr().err
        assert complaint in message
        assert message.count("\n") == 1
    assert main(["fetch-data", "cifar10", "--font", "font.ttf"]) == 2
    assert "--font and --names are for emoji" in capsys.readouterr().err
    left = sorted(file.name for file in tmp_path.rglob("*") if file.is_file())
    assert left == ["font.ttf", "list.txt"]
