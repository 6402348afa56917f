"""Sampled images with their scores, and with all settings that sample them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.images import save_png, to_images
from dalle_mini_impl.pipeline.notebook import figure_html, gallery_html, png_bytes
from dalle_mini_impl.pipeline.selection import Selected
from dalle_mini_impl.sampling.config import SEEDS, SamplingConfig
from dalle_mini_impl.sampling.given import Given
from dalle_mini_impl.sampling.record import (
    MAX_CAPTION,
    NearestImage,
    Origin,
    SampleRecord,
    attach,
    copy_mark,
    finite,
)
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
    pasted: bool
    """Whether the pixels of kept codes are those of the image they were taken from."""
    sampling: SamplingConfig
    """All other settings it was sampled with."""
    origin: Origin | None = None
    """The models that sampled it; None where they are of no run."""
    nearest: NearestImage | None = None
    """The training image that it is most like; None where the run has no codes of them."""
    repeats: int = 0
    """Candidates of a lower rank that are near copies of it."""
    same_as: int | None = None
    """The better candidate that it is a near copy of; None where it is none."""

    @property
    def record(self) -> SampleRecord | None:
        """What its file says of it; None where its models are of no run."""
        if self.origin is None:
            return None
        return SampleRecord(
            caption=self.caption[:MAX_CAPTION],
            negative=self.negative[:MAX_CAPTION],
            seed=self.seed if abs(self.seed) < SEEDS else self.seed % SEEDS,
            candidate=self.candidate,
            clip_score=finite(self.clip_score),
            log_likelihood=finite(self.log_likelihood),
            log_likelihood_ratio=finite(self.log_likelihood_ratio),
            nearest=self.nearest,
            sampling=self.sampling,
            origin=self.origin,
            codes=self.codes,
            given=self.given,
            pasted=self.pasted,
            side=self.image.width,
        )

    @property
    def _chunks(self) -> PngInfo | None:
        record = self.record
        return None if record is None else record.chunks()

    def save(self, path: str | Path) -> None:
        """Write a PNG with its record (`sampling/record.py`); a reader never sees half of it."""
        if Path(path).suffix.lower() != ".png":
            raise ConfigError(f"{path}: results are saved as PNG; name a file that ends in .png")
        save_png(self.image, path, self._chunks)

    @property
    def score_line(self) -> str:
        """The scores in a line that fits under an image."""
        ratio = f"llr {self.log_likelihood_ratio:.1f}"
        return ratio if self.clip_score is None else f"clip {self.clip_score:.2f} {ratio}"

    @property
    def mark(self) -> str:
        """In a few words, whether it is a near copy of a training image or of a better one."""
        same = "same again" if self.same_as is not None else ""
        return ", ".join(filter(None, [copy_mark(self.nearest), same]))

    @property
    def is_training_copy(self) -> bool:
        """Whether it is a near copy of a training image, as far as the run knows these."""
        return self.nearest is not None and self.nearest.near_copy

    @property
    def _line(self) -> str:
        return " · ".join(filter(None, [f"seed {self.seed}", self.score_line, self.mark]))

    def __repr__(self) -> str:
        mark = f", {self.mark}" if self.mark else ""
        return f"Result({self.caption!r}, seed={self.seed}, {self.score_line}{mark})"

    def _repr_png_(self) -> bytes:
        return png_bytes(self.image, self._chunks)

    def _repr_html_(self) -> str:
        return figure_html(self.image, f"{self.caption} · {self._line}")


class Results(list[Result]):
    """The images of one caption, best first; a gallery in a notebook."""

    def __repr__(self) -> str:
        images = f"{len(self)} image{'' if len(self) == 1 else 's'}"
        return f"Results({self[0].caption!r}, {images})" if self else "Results()"

    def _repr_html_(self) -> str:
        tiles = [(each.image, each._line) for each in self]
        return gallery_html(self[0].caption if self else "", tiles)


def results_of(
    samples: Samples,
    selected: Sequence[Selected],
    first_seed: int,
    config: SamplingConfig,
    negative: str = "",
    given: Given | None = None,
    origin: Origin | None = None,
) -> Results:
    """Samples as results.

    selected: what is known of each among the candidates. first_seed: of the first candidate. The
    rest: as they were sampled.
    """
    scores = samples.clip_scores
    results = Results(
        Result(
            image,
            samples.caption,
            seed,
            None if scores is None else float(scores[at]),
            float(samples.log_likelihoods[at]),
            float(samples.log_likelihood_ratios[at]),
            tuple(samples.codes[at].tolist()),
            seed - first_seed,
            negative,
            None if given is None else tuple(given.codes.tolist()),
            given is not None and given.pixels is not None,
            config,
            origin,
            choice.nearest,
            choice.repeats,
            choice.same_as,
        )
        for at, (image, seed, choice) in enumerate(
            zip(to_images(samples.pixels), samples.seeds, selected, strict=True)
        )
    )
    for result in results:
        attach(result.image, result.record)
    return results
