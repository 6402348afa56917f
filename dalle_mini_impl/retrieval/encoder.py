"""A CLIP as an encoder of images and texts, and the order of images for a caption.

Classification, search and VQGAN+CLIP know only `JointEncoder`. `RunClip` is the CLIP of a run;
retrieval/pretrained.py has those of other libraries.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dalle_mini_impl.captions import CaptionTokenizer
from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.models.clip import Clip
from dalle_mini_impl.precision import best_device
from dalle_mini_impl.retrieval.preprocessing import Preprocessing
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_clip
from dalle_mini_impl.runs.named import find_run

BATCH = 64
"""Images or texts embedded at a time, to bound memory."""


class JointEncoder(ABC):
    """Images and texts as unit vectors of one space."""

    key: str
    """Identifies the weights; stored vectors can be used as long as it stays the same."""
    image_size: int
    """Side in pixels of the images that it takes."""
    preprocessing = Preprocessing()
    """How images of other proportions are made square."""
    logit_scale: float
    """What similarities are multiplied by before a softmax."""
    device: torch.device

    @abstractmethod
    def embed_pixels(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit vectors of `image_size`² pixels in [0, 1], differentiable in the pixels."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "b e"]:
        """Unit vectors of a few texts."""

    def prepare(self, image: Image.Image) -> Image.Image:
        """The image as this CLIP takes it: RGB, with `image_size`² pixels."""
        return self.preprocessing(image, self.image_size)

    @torch.no_grad()
    def encode_images(
        self, images: Sequence[Image.Image] | Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b e"]:
        """Unit vectors of images of any kind and size, or of `image_size`² pixels in [0, 1]."""
        vectors = []
        for start in range(0, max(len(images), 1), BATCH):
            part = images[start : start + BATCH]
            if isinstance(part, Tensor):
                pixels = part
            else:
                pixels = to_tensor([self.prepare(image) for image in part], self.image_size)
            vectors.append(self.embed_pixels(pixels.to(self.device)))
        return torch.cat(vectors)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "b e"]:
        """Unit vectors of texts."""
        return torch.cat(
            [self.embed_texts(texts[i : i + BATCH]) for i in range(0, max(len(texts), 1), BATCH)]
        )


class RunClip(JointEncoder):
    """A CLIP of this project, with the vocabulary it was trained with."""

    def __init__(
        self,
        clip: Clip,
        captions: CaptionTokenizer,
        key: str = "",
        device: str | torch.device = "cpu",
    ):
        self.device = torch.device(device)
        self.clip = frozen(clip, self.device)
        self.captions = captions
        self.key = key
        self.image_size = clip.image_size
        self.logit_scale = float(clip.logit_scale)

    @classmethod
    def from_run(
        cls, run: str | Path | RunFolder, device: str | torch.device | None = None
    ) -> "RunClip":
        """The CLIP of a run folder; RunError if it has none. Without `device`, `best_device`."""
        folder = run if isinstance(run, RunFolder) else find_run(run)
        captions = folder.captions()
        clip = load_clip(folder, captions)
        return cls(clip, captions, folder.weights_hash("clip"), device or best_device())

    def embed_pixels(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        return self.clip.encode_image(pixels)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "b e"]:
        return self.clip.encode_text(torch.from_numpy(self.captions.encode(texts)).to(self.device))


@dataclass(frozen=True)
class Ranked:
    """One image in the order that a caption gives."""

    index: int
    """Its position among the given images."""
    score: float
    """Cosine similarity with the caption, in [-1, 1]."""


def rerank(
    clip: JointEncoder,
    caption: str,
    images: Sequence[Image.Image] | Float[Tensor, "b 3 h w"],
) -> list[Ranked]:
    """The images in order, best fit to the caption first."""
    scores = clip.encode_images(images) @ clip.encode_texts([caption])[0]
    order = scores.argsort(descending=True, stable=True).tolist()
    return [Ranked(index, float(scores[index])) for index in order]
