"""An example is an image that is not decoded yet, with its captions; a source yields them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dalle_mini_impl.data.config import MAX_MEGAPIXELS
from dalle_mini_impl.data.image_files import open_image_file
from dalle_mini_impl.data.synthetic.panels import Panels
from dalle_mini_impl.data.synthetic.rendering import render_panels, render_scene
from dalle_mini_impl.data.synthetic.scenes import Scene

SyntheticImage = Scene | Panels
"""The description of a synthetic image, rendered when it is opened, at any size."""


@dataclass(frozen=True)
class Example:
    """An image that is not decoded yet, with its captions."""

    key: str
    """Identifies the image within its collection; the same in every run."""
    image: bytes | str | SyntheticImage | None
    """The file's bytes or path, a synthetic image, or None where the row has no image."""
    captions: tuple[str, ...]
    attributes: dict[str, Any] | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    """Larger images are not decoded."""
    problem: str = "the row holds no image"
    """Why there is no image."""

    def open(self, side: int | None = None) -> Image.Image:
        """The decoded image. With `side`, a large JPEG may be decoded smaller, but not below it.

        Raises whatever `open_image_file` raises on a missing, damaged or too large file.
        """
        if isinstance(self.image, Scene):
            return render_scene(self.image, side or 64)
        if isinstance(self.image, Panels):
            return render_panels(self.image, side or 64)
        if self.image is None:
            raise ValueError(self.problem)
        if isinstance(self.image, str) and "://" in self.image:
            raise ValueError("a URL: download the images first, into a folder or tar shards")
        return open_image_file(self.image, side, self.max_megapixels)


class Source(ABC):
    """One split of a collection. Iterating gives its examples, always in the same order."""

    captioned: bool
    """Whether the collection has captions at all."""
    description: str
    """One line on what was detected."""
    reader: Callable[[Any], Example]
    """A picklable function from a row to its example."""

    may_share_images = False
    """Whether the split has images that another split may hold too, under other names."""

    @abstractmethod
    def rows(self) -> Iterator[Any]:
        """The input of `reader`: cheap to create and to send to another process."""

    @abstractmethod
    def size(self) -> int | None:
        """Upper bound on the number of rows; None where it is unknown before reading."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the content does."""

    def __iter__(self) -> Iterator[Example]:
        return map(self.reader, self.rows())


def unreadable_reason(error: Exception) -> str:
    """Why an image cannot be read, in one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
