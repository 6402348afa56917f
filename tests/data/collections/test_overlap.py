"""Images behind both the training and the validation path are used by only one of them."""

from pathlib import Path

import datasets

from tests.data.collections.colored_squares import (
    COLORS,
    examples,
    made_images,
    png,
    write_table,
)


def test_held_out_path_replaces_the_share(tmp_path):
    made_images(tmp_path / "a", COLORS[:4])
    made_images(tmp_path / "b", COLORS[4:])
    settings = {"held_out_path": str(tmp_path / "b"), "held_out": 0.5}
    assert len(examples(tmp_path / "a", **settings)) == 4
    assert {e.key for e in examples(tmp_path / "a", "validation", **settings)} == {
        "black.png",
        "orange.png",
    }


def both(path: Path, elsewhere: Path, **settings) -> tuple[set[str], set[str]]:
    """First captions of training and of validation."""
    settings = {"held_out_path": str(elsewhere), **settings}
    train, validation = (examples(path, split, **settings) for split in ("train", "validation"))
    return {e.captions[0] for e in train}, {e.captions[0] for e in validation}


def captioned_images(folder: Path, colors) -> None:
    for file in made_images(folder, colors):
        file.with_suffix(".txt").write_text(file.stem)


def test_held_out_path_inside_the_path_never_trains(tmp_path):
    for name, colors in (("train", COLORS[:4]), ("test", COLORS[4:])):
        captioned_images(tmp_path / name, colors)
    separate = (set(COLORS[:4]), set(COLORS[4:]))
    assert both(tmp_path, tmp_path / "test") == separate
    assert both(tmp_path, tmp_path) == separate
    assert both(tmp_path / "train", tmp_path) == separate
    captioned_images(tmp_path.parent / f"{tmp_path.name}-other", ["pink"])
    other = tmp_path.parent / f"{tmp_path.name}-other"
    assert both(tmp_path, other) == (set(COLORS[:4]), {"pink"})


def test_overlapping_paths_without_split_names_are_kept_apart(tmp_path):
    for name, colors in (("mine", COLORS[:4]), ("others", COLORS[4:])):
        captioned_images(tmp_path / name, colors)
    assert both(tmp_path, tmp_path / "others") == (set(COLORS[:4]), set(COLORS[4:]))
    assert both(tmp_path / "mine", tmp_path) == (set(COLORS[:4]), set(COLORS[4:]))
    train, validation = both(tmp_path, tmp_path / "**" / "*.png", held_out=0.5)
    assert train | validation == set(COLORS)
    assert not train & validation


def test_tables_that_name_the_same_images_are_kept_apart(tmp_path):
    made_images(tmp_path)
    rows = [(f"{color}.png", color) for color in COLORS]
    whole = write_table(tmp_path / "all.csv", ("path", "caption"), rows)
    test = write_table(tmp_path / "test.csv", ("path", "caption"), rows[4:])
    assert both(whole, test) == (set(COLORS[:4]), set(COLORS[4:]))


def test_a_hub_data_set_is_no_validation_of_itself(monkeypatch):
    def load_dataset(name, subset=None, streaming=False):
        rows = {"image": [{"bytes": png(c), "path": None} for c in COLORS], "text": list(COLORS)}
        table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        splits = {"train": table.select(range(4)), "validation": table.select((4, 5))}
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # No name is asked for.
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for other in ("a/b", "hub:a/b", "a/c"):
        found = examples("a/b", "validation", held_out_path=other)
        assert [e.captions[0] for e in found] == list(COLORS[4:])
