"""The columns of images, captions and labels are found, or can be named."""

import datasets
import pytest

from dalle_mini_impl.data.collections.detect import DataError
from tests.data.collections.colored_squares import (
    COLORS,
    EXPECTED,
    captions,
    examples,
    made_images,
    png,
    shard,
    tar,
    write_table,
)


def test_list_columns_give_several_captions(tmp_path):
    made_images(tmp_path)
    rows = [(f"{color}.png", [f"a {color} square", "a square", ""]) for color in COLORS]
    table = write_table(tmp_path / "table.jsonl", ("file_name", "captions"), rows)
    found = captions(examples(table))
    assert found == {key: (*value, "a square") for key, value in EXPECTED.items()}


def test_webdataset_captions_from_json(tmp_path):
    path = shard(tmp_path / "a.tar")
    assert examples(path, caption_column="json.de")[0].captions == ("rede",)
    assert examples(path, caption_column="json")[0].captions == ("red", "rede")
    named = {"a.png": png(), "a.json": b'{"caption": "by name"}'}
    assert examples(tar(tmp_path / "b.tar", named))[0].captions == ("by name",)


def labeled(names: list[str] | None) -> datasets.Dataset:
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"img": datasets.Image(), "label": kind})
    rows = {"img": [{"bytes": png(c), "path": None} for c in COLORS[:3]], "label": [0, 1, 0]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_class_labels_become_captions(tmp_path):
    labeled(["guinea_pig", "cat"]).to_parquet(tmp_path / "a.parquet")
    found = examples(tmp_path / "a.parquet", templates=("a {label}", "one {label}!"))
    assert [e.captions for e in found] == [
        ("a guinea pig", "one guinea pig!"),
        ("a cat", "one cat!"),
        ("a guinea pig", "one guinea pig!"),
    ]


def test_labels_without_names(tmp_path):
    labeled(None).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="numbers without names"):
        examples(tmp_path / "a.parquet")
    named = examples(tmp_path / "a.parquet", label_column="label")
    assert named[1].captions == ("a photo of a 1",)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("image_of", "caption"), r"image_of \(string\), caption.*data.image_column"),
        (("path", "words"), r"path \(string\), words.*data.caption_column"),
        (("image", "path"), r"image and path could each be the image"),
    ],
)
def test_missing_and_ambiguous_columns_list_what_there_is(tmp_path, header, message):
    made_images(tmp_path / "images")
    table = write_table(tmp_path / "t.csv", header, [("images/red.png", "a red square")])
    with pytest.raises(DataError, match=message):
        examples(table)


def test_columns_can_be_named(tmp_path):
    made_images(tmp_path)
    table = write_table(tmp_path / "t.csv", ("where", "words"), [("red.png", "a red square")])
    assert examples(table, image_column="where", caption_column="words")[0].captions == (
        "a red square",
    )
    assert examples(table, image_column="where", caption_column="")[0].captions == ()
    with pytest.raises(DataError, match=r"data\.caption_column 'typo' is not one of them"):
        examples(table, image_column="where", caption_column="typo")


def test_absolute_paths_and_awkward_captions(tmp_path):
    files = made_images(tmp_path / "images")
    texts = ["none", "NA", "null", "", "7", "a, b"]
    rows = [(str(file), text) for file, text in zip(files, texts, strict=True)]
    table = write_table(tmp_path / "table.csv", ("image", "caption"), rows)
    assert [e.captions for e in examples(table)] == [(t,) if t else () for t in texts]
