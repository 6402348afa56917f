"""Sampled images with their scores, and with all settings that sample them again."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.images import save_png, to_images
from dalle_mini_impl.pipeline.notebook import figure_html, gallery_html, png_bytes
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.samples import Samples


@dataclass(frozen=True, repr=False)
class Result:
    """One sampled image with its scores and with what it was sampled from."""

    image: Image.Image
    caption: str
    seed: int
    """The image's own seed: with the same settings it gives the same image, in fp32 in any
    batch."""
    clip_score: float | None
    """Cosine similarity of image and caption in [-1, 1]; None where the run has no CLIP."""
    log_likelihood: float
    """ln p(codes | caption), in nats."""
    log_likelihood_ratio: float
    """ln p(codes | caption) - ln p(codes | null caption), in nats."""
    codes: tuple[int, ...]
    candidate: int
    """Its number among the candidates of its caption, in the order of their seeds."""
    negative: str
    """The caption that guidance moved away from; empty for the null caption."""
    given: tuple[int, ...] | None
    """Codes that were kept, -1 where sampled; None where all were sampled."""
    sampling: SamplingConfig
    """All other settings it was sampled with."""

    def save(self, path: str | Path) -> None:
        """Write a PNG; a reader never sees half of it."""
        if Path(path).suffix.lower() != ".png":
            raise ConfigError(f"{path}: results are saved as PNG; name a file that ends in .png")
        save_png(self.image, path)

    @property
    def score_line(self) -> str:
        """The scores in a line that fits under an image."""
        ratio = f"llr {self.log_likelihood_ratio:.1f}"
        return ratio if self.clip_score is None else f"clip {self.clip_score:.2f} {ratio}"

    def __repr__(self) -> str:
        return f"Result({self.caption!r}, seed={self.seed}, {self.score_line})"

    def _repr_png_(self) -> bytes:
        return png_bytes(self.image)

    def _repr_html_(self) -> str:
        return figure_html(self.image, f"{self.caption} · seed {self.seed} · {self.score_line}")


class Results(list[Result]):
    """The images of one caption, best first; a gallery in a notebook."""

    def __repr__(self) -> str:
        images = f"{len(self)} image{'' if len(self) == 1 else 's'}"
        return f"Results({self[0].caption!r}, {images})" if self else "Results()"

    def _repr_html_(self) -> str:
        tiles = [(each.image, f"seed {each.seed} · {each.score_line}") for each in self]
        return gallery_html(self[0].caption if self else "", tiles)


def results_at(
    samples: Samples,
    order: Iterable[int],
    config: SamplingConfig,
    negative: str = "",
    given: tuple[int, ...] | None = None,
) -> Results:
    """The candidates at `order` as results. config, negative and given: as they were sampled."""
    order = list(order)
    scores = samples.clip_scores
    return Results(
        Result(
            image,
            samples.caption,
            samples.seeds[at],
            None if scores is None else float(scores[at]),
            float(samples.log_likelihoods[at]),
            float(samples.log_likelihood_ratios[at]),
            tuple(samples.codes[at].tolist()),
            at,
            negative,
            given,
            config,
        )
        for image, at in zip(to_images(samples.pixels[order]), order, strict=True)
    )
