"""What `dalle sample` says of near copies: among the candidates, and of training images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dalle_mini_impl.data.messages import counted

if TYPE_CHECKING:
    from dalle_mini_impl.pipeline import Result


def copies_left(caption: str, own: "Sequence[Result]") -> str:
    """Why near copies of training images are shown although they were to be avoided, if any are."""
    others = sum(not result.is_training_copy for result in own)
    if others == len(own):
        return ""
    candidates = own[0].sampling.candidates
    if not others:
        return (
            f"{caption!r}: all {candidates} candidates are near copies of training images; the "
            "best of them are shown, marked"
        )
    are = "is not a near copy" if others == 1 else "are not near copies"
    return (
        f"{caption!r}: only {others} of {candidates} candidates {are} of training images; marked "
        "copies follow"
    )


def remarks(results: "Sequence[Sequence[Result]]") -> list[str]:
    """How many candidates were the same, and how many images are training images again."""
    lines = []
    shown = [result for own in results for result in own]
    repeats = sum(result.repeats for result in shown)
    if repeats:
        candidates = sum(own[0].sampling.candidates for own in results)
        lines.append(f"{repeats} of {candidates} candidates were near copies of images shown")
    copies = sum(result.is_training_copy for result in shown)
    if copies:
        are = "is a near copy of a training image"
        are = are if copies == 1 else "are near copies of training images"
        lines.append(f"{copies} of {counted(len(shown), 'image')} {are}, marked")
    return lines
