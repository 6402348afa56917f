"""A text-to-image system to train from scratch.

`TextToImage.from_pretrained(run)` loads a trained run; importing the package alone loads nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dalle_mini_impl.pipeline import TextToImage

__all__ = ["TextToImage"]


def __getattr__(name: str) -> Any:
    if name == "TextToImage":
        from dalle_mini_impl.pipeline import TextToImage

        return TextToImage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
