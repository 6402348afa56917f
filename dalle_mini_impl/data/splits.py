"""The three splits that every collection has."""

from typing import Literal, get_args

Split = Literal["train", "validation", "held_out"]
"""No two splits share an image. "held_out" is what training must never see: images with a caption
that matches `held_out_captions` or, in synthetic data, compositions kept from training."""

SPLITS: tuple[Split, ...] = get_args(Split)
