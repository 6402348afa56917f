"""The three splits that every collection has."""

from typing import Literal

Split = Literal["train", "validation", "held_out"]
"""No two splits share an image. "held_out" holds what training must never see: images whose
captions match `held_out_captions` or, in synthetic data, compositions kept from training."""
