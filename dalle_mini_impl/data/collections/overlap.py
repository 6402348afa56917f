"""Keeps training and validation apart where `held_out_path` names overlapping files."""

from typing import Literal

from dalle_mini_impl.data.collections.detect import HUB, detect, real_path
from dalle_mini_impl.data.collections.loading import iterate_rows, open_files
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.splits import Split


def separate_validation(config: DataConfig, split: Split) -> tuple[str | None, frozenset[str]]:
    """The separate path of the validation images, if any, and the files this split must leave out.

    Files behind both paths are left to validation, unless its path holds all training files.
    """
    elsewhere = config.held_out_path
    if elsewhere is None or split == "held_out":
        return elsewhere, frozenset()
    if elsewhere.removeprefix(HUB) == config.path.removeprefix(HUB):
        return None, frozenset()
    training = _image_files(config, config.path, "train")
    validation = _image_files(config, elsewhere, "validation")
    if training and training == validation:
        return None, frozenset()
    gives_way = "validation" if training <= validation else "train"
    return elsewhere, training & validation if split == gives_way else frozenset()


def _image_files(
    config: DataConfig, path: str, split: Literal["train", "validation"]
) -> frozenset[str]:
    """Files or URLs of a split: the images that tables name, else the files themselves."""
    found = detect(path)
    if found.kind == "hub":
        return frozenset()
    found = found.named(split) or found
    if found.kind not in ("csv", "json", "samples"):
        return frozenset(map(real_path, found.files))
    return frozenset(
        real_path(table.image_file(image["path"]))
        for table in open_files(config, found, path)
        for row in iterate_rows(table, path)
        if (image := row[table.columns.image]) and image.get("path")
    )
