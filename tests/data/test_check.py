"""The data check tells what training would find, and its command prints it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_mini_impl.cli.data import main
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.check import check
from dalle_mini_impl.data.collections.detect import DataError
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig


@pytest.fixture
def collection(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    texts = ["a cat", "a cat", "a large dog runs\na dog", "", "broken one", "small"]
    for number, text in enumerate(texts):
        size = (8, 8) if text == "small" else (80, 70)
        mode = "RGBA" if number == 0 else "RGB"
        Image.new(mode, size, (40 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(text)
    (folder / "4.png").write_bytes(b"not an image")
    return folder


def test_what_the_report_says(collection):
    report = check(DataConfig(path=str(collection), held_out=0))
    assert report.counts == {"train": 6, "validation": 0, "held_out": 0}
    assert report.sizes == {(80, 70): 4, (8, 8): 1}
    assert report.modes == {"RGB": 4, "RGBA": 1}
    assert len(report.unreadable) == 1
    assert report.unreadable[0].startswith("4.png: ")
    assert report.captions == 6
    assert sorted(report.words) == [1, 2, 2, 2, 2, 4]
    assert report.uncaptioned == ("3.png",)
    assert report.duplicates == {"a cat": 2}
    assert report.small == 1
    text = str(report)
    for piece in ("6 (6 train)", "80×70 (4)", "RGBA (1)", "1: 4.png", "1: 3.png", "'a cat' (2)"):
        assert piece in text
    assert "tokens" not in text


def test_splits_are_counted_apart(collection):
    settings = {"path": str(collection), "held_out": 0.5, "held_out_captions": ("cat",)}
    counts = check(DataConfig(**settings)).counts
    assert counts["held_out"] == 2
    assert sum(counts.values()) == 6


def test_tokens_are_counted_where_a_tokenizer_is_given(collection):
    config = DataConfig(path=str(collection), held_out=0)
    report = check(config, count_tokens=lambda captions: [len(c) for c in captions])
    assert report.tokens is not None
    assert max(report.tokens) == len("a large dog runs")
    assert "tokens" in str(report)


def test_contact_sheet_shows_the_readable_images(collection, tmp_path):
    sheet = tmp_path / "out" / "sheet.png"
    report = check(DataConfig(path=str(collection), held_out=0), sheet)
    shown = {color for _, color in Image.open(sheet).getcolors(1 << 20)}
    assert {(40, 0, 0), (80, 0, 0), (120, 0, 0), (200, 0, 0)} <= shown
    assert (160, 0, 0) not in shown
    assert str(sheet) in str(report)


def test_shapes_are_drawn_at_the_size_asked_for(tmp_path):
    shapes = ShapesConfig(train_examples=10, validation_examples=2, held_out_examples=3)
    config = DataConfig(image_size=32, shapes=shapes)
    report = check(config, tmp_path / "sheet.png")
    assert report.counts == {"train": 10, "validation": 2, "held_out": 3}
    assert report.sizes == {(32, 32): 15}
    assert np.asarray(Image.open(tmp_path / "sheet.png")).std() > 1


def test_an_empty_collection_is_an_error(tmp_path):
    (tmp_path / "t.csv").write_text("image,caption\n")
    with pytest.raises(DataError):
        check(DataConfig(path=str(tmp_path / "t.csv")))


def test_the_command(collection, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    main(["check", str(collection), "--sheet", str(sheet), "--data.held-out", "0"])
    printed = capsys.readouterr().out
    assert "6 (6 train)" in printed
    assert sheet.is_file()


def test_the_command_passes_column_names_on(collection, capsys):
    table = collection / "table.csv"
    table.write_text("where,words\n0.png,first\n1.png,second\n")
    with pytest.raises(DataError, match=r"data\.image_column"):
        main(["check", str(table)])
    main(["check", str(table), "--data.image-column", "where", "--data.caption-column", "words"])
    assert "images from `where`, captions from `words`" in capsys.readouterr().out


def test_the_command_reads_an_experiment(tmp_path, capsys):
    experiment = tmp_path / "small.yaml"
    experiment.write_text(
        "data:\n  path: shapes\n  image_size: 32\n"
        "  shapes: {train_examples: 4, validation_examples: 1, held_out_examples: 1}\n"
    )
    main(["check", str(experiment)])
    assert "6 (4 train, 1 validation, 1 held_out)" in capsys.readouterr().out


def test_the_command_counts_tokens(collection, tmp_path, capsys):
    from dalle_mini_impl.captions import CaptionsConfig, CaptionTokenizer

    vocabulary = tmp_path / "words.json"
    config = CaptionsConfig(vocabulary_size=300, context=8)
    CaptionTokenizer.train(["a cat", "a dog"], config).save(vocabulary)
    main(["check", str(collection), "--vocabulary", str(vocabulary)])
    assert "tokens" in capsys.readouterr().out


def test_other_commands_are_refused():
    with pytest.raises(ConfigError, match="no such command"):
        main(["chek", "."])
