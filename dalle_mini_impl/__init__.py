"""A text-to-image system to train from scratch.

`TextToImage.from_pretrained(run)` loads a trained run; importing the package alone loads nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dalle_mini_impl.pipeline import Result, Results, TextToImage

__all__ = ["Result", "Results", "TextToImage"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from dalle_mini_impl import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
