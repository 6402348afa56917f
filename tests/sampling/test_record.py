"""The record of a sampled image: what other programs read of it, and what is refused."""

import json
import re
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.record import (
    CHUNK,
    Origin,
    RecordError,
    SampleRecord,
    find_record,
    finite,
    read_record,
)

DIGEST = "0123456789abcdef" * 2
RECORD = SampleRecord(
    caption="a red heart, large",
    seed=11,
    candidate=4,
    clip_score=0.25,
    log_likelihood=-12.5,
    log_likelihood_ratio=None,
    sampling=SamplingConfig(guidance=1.5, top_k=9),
    origin=Origin(
        run="runs/my run: 2", image_tokenizer=DIGEST, dalle=DIGEST, clip=None, version="1"
    ),
    codes=(3, 1, 4, 1),
    given=(3, -1, -1, 1),
    side=32,
)  # fmt: skip


def saved(folder, record=RECORD):
    Image.new("RGB", (32, 32)).save(folder / "image.png", pnginfo=record.chunks())
    return folder / "image.png"


def read_parameters(text):
    """The caption, negative caption and settings, as the web UI's readers take them apart."""
    *lines, last = text.strip().split("\n")
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(pairs) >= 3, "readers would take the line for a part of the caption"
    caption, negative = [], None
    for line in lines:
        if line.startswith("Negative prompt:"):
            negative, line = [], line.removeprefix("Negative prompt:").strip()
        (caption if negative is None else negative).append(line)
    settings = {name: json.loads(v) if v.startswith('"') else v for name, v in pairs}
    return "\n".join(caption), "\n".join(negative or ()), settings


def test_a_file_gives_its_record_back(tmp_path):
    with Image.open(saved(tmp_path)) as image:
        assert read_record(image) == RECORD
    with Image.open(tmp_path / "image.png") as image:
        assert find_record(image.convert("RGB").copy()) == RECORD


@pytest.mark.parametrize("caption", ["a red heart, large", "ein Bär\nund 日本 \0 🎉", ""])
def test_other_programs_read_caption_and_settings(tmp_path, caption):
    record = RECORD.model_copy(update={"caption": caption, "negative": "blue, small"})
    with Image.open(saved(tmp_path, record)) as image:
        found, negative, settings = read_parameters(image.info["parameters"])
        assert read_record(image).caption == caption
    assert found == caption.replace("\0", " ")
    assert negative == "blue, small"
    assert settings["Steps"] == "4"
    assert settings["CFG scale"] == "1.5"
    assert settings["Seed"] == "11"
    assert settings["Size"] == "32x32"
    assert settings["Model"] == "my run: 2"
    assert settings["Model hash"] == DIGEST[:10]
    assert "Log likelihood ratio" not in settings


def changed(**values):
    return json.dumps({**RECORD.to_json(), **values})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "a wrong record"),
        ('{"format": 1}', "a wrong record (caption"),
        ('{"seed": NaN}', "NaN is not a JSON value"),
        ('{"seed": ' + "9" * 5000 + "}", "not JSON"),
        (changed(format=2), "format"),
        (changed(run_this="rm"), "run_this"),
        (changed(seed=2**200), "seed"),
        (changed(candidate=-1), "candidate"),
        (changed(log_likelihood="x"), "log_likelihood"),
        (changed(codes=[0] * 70_000), "codes"),
        (changed(codes=[-1, 0, 0, 0]), "codes.0"),
        (changed(given=[3, -1]), "2 given codes for 4 codes"),
        (changed(given=[2, -1, -1, -1]), "differ from the codes"),
        (changed(side=0), "side"),
        (changed(sampling={"temperature": -1}), "sampling.temperature"),
        (changed(sampling={"batch_size": 10**9}), "sampling.batch_size"),
        (changed(sampling={"batch_size": 10**4, "shell": "x"}), "sampling.shell"),
        (changed(origin={"run": "x", "dalle": "../.."}), "origin"),
        (changed(caption="a" * 2**15), "caption"),
        (" " * (2**20 + 1), "characters; at most"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused_in_one_line(tmp_path, text, complaint):
    info = PngImagePlugin.PngInfo()
    info.add_text(CHUNK, text)
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png", pnginfo=info)
    with Image.open(tmp_path / "image.png") as image:
        with pytest.raises(RecordError) as error:
            read_record(image)
        assert find_record(image) is None
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_an_image_without_a_record_has_none():
    image = Image.new("RGB", (4, 4))
    assert find_record(image) is None
    image.info[CHUNK] = 7
    assert find_record(image) is None


def test_scores_that_are_no_numbers_are_left_out():
    assert [finite(score) for score in (0.5, None, float("nan"), float("-inf"))] == [
        0.5, None, None, None,
    ]  # fmt: skip


def with_chunk(file, kind, data):
    """The PNG file with one chunk more, before the pixels."""
    content = file.read_bytes()
    at = content.index(b"IDAT") - 4
    checked = kind + data
    chunk = struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
    file.write_bytes(content[:at] + chunk + content[at:])


def test_a_compressed_bomb_is_refused_by_the_reader(tmp_path):
    file = tmp_path / "image.png"
    Image.new("RGB", (4, 4)).save(file)
    bomb = CHUNK.encode() + b"\0\0" + zlib.compress(b"[" * 5_000_000, 9)
    with_chunk(file, b"zTXt", bomb)
    with pytest.raises(ValueError, match="too large"):
        Image.open(file)
