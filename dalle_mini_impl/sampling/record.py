"""What is known of a sampled image: a record that its PNG file carries and samples.json repeats.

The chunk `parameters` is text in the form that other programs read (Stable Diffusion web UI and
its readers); the chunk `dalle` is the whole record as JSON. A record that is read from a file is
only data from a stranger: its values are checked, and codes count only where they decode to the
image's own pixels (`TextToImage.encode`).
"""

import json
import math
from typing import Annotated, Any, Literal

from PIL import Image, PngImagePlugin
from pydantic import Field, StringConstraints, ValidationError, model_validator

from dalle_mini_impl.config import Config
from dalle_mini_impl.sampling.config import SEEDS, SamplingConfig

CHUNK = "dalle"
MAX_TEXT = 2**20
"""Characters of a record; Pillow limits compressed chunks to the same size, but not plain ones."""
MAX_CODES = 2**16
"""Codes of an image."""

MAX_CAPTION = 2**14
"""Characters of a caption; no model reads as many."""

Text = Annotated[str, StringConstraints(max_length=MAX_CAPTION)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Score = Annotated[float, Field(allow_inf_nan=False)]
Code = Annotated[int, Field(ge=0, lt=2**62)]
GivenCode = Annotated[int, Field(ge=-1, lt=2**62)]


class Origin(Config):
    """The models that sampled an image."""

    run: Text
    """The run as it was named: a folder, in most cases."""
    image_tokenizer: Digest
    """Digest of the image tokenizer's weights; codes mean nothing to another one."""
    dalle: Digest
    """Digest of the transformer's weights."""
    clip: Digest | None
    """Digest of CLIP's weights; None where the run has no CLIP."""
    version: Text
    """Version of this package."""


class NearestImage(Config):
    """The training image that a sample is most like, by their codes."""

    image: int = Field(ge=0)
    """Its number among the training images, in their order."""
    likeness: float = Field(ge=0, le=1)
    """Share of the information in their codes that is the same (`sampling/likeness.py`)."""
    near_copy: bool
    """Whether the sample is a near copy of it."""


def copy_mark(nearest: NearestImage | None) -> str:
    """What is written under a near copy of a training image; nothing under others."""
    copied = nearest is not None and nearest.near_copy
    return f"training copy {nearest.likeness:.0%}" if nearest and copied else ""


class SampleRecord(Config):
    """Everything that samples an image again, with its scores and codes."""

    format: Literal[1] = 1
    caption: Text
    negative: Text = ""
    """The caption that guidance moved away from; empty for the null caption."""
    seed: int = Field(gt=-SEEDS, lt=SEEDS)
    """The image's own seed."""
    candidate: int = Field(ge=0)
    """Its number among the candidates of its caption."""
    clip_score: Score | None
    """Cosine similarity of image and caption; None where the run has no CLIP."""
    log_likelihood: Score | None
    """ln p(codes | caption), in nats; None where it is not finite, as for other scores."""
    log_likelihood_ratio: Score | None
    """ln p(codes | caption) - ln p(codes | null caption), in nats."""
    nearest: NearestImage | None = None
    """The nearest training image; None where the run had no codes of its training images."""
    sampling: SamplingConfig
    """All other settings."""
    origin: Origin
    codes: tuple[Code, ...] = Field(max_length=MAX_CODES)
    given: tuple[GivenCode, ...] | None = Field(None, max_length=MAX_CODES)
    """Codes that were kept, -1 where they were sampled; None where all were."""
    pasted: bool = False
    """Whether the pixels of kept codes are those of the image they were taken from."""
    side: int = Field(gt=0, le=2**14)
    """Width and height in pixels."""

    @model_validator(mode="after")
    def _check_given(self) -> "SampleRecord":
        if self.given is not None:
            if len(self.given) != len(self.codes):
                raise ValueError(f"{len(self.given)} given codes for {len(self.codes)} codes")
            if any(own not in (-1, code) for own, code in zip(self.given, self.codes, strict=True)):
                raise ValueError("given codes differ from the codes")
        return self

    def to_json(self) -> dict[str, Any]:
        """JSON values, as in samples.json."""
        return self.model_dump(mode="json")

    def chunks(self) -> PngImagePlugin.PngInfo:
        """The text chunks of the image's PNG file."""
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", parameters(self))
        info.add_text(CHUNK, json.dumps(self.to_json()))
        return info


def attach(image: Image.Image, record: SampleRecord | None) -> None:
    """Let an image in memory carry the record that its file would."""
    if record is not None:
        image.info[CHUNK] = json.dumps(record.to_json())


def finite(score: float | None) -> float | None:
    """The score where it is a number that JSON can hold, else None."""
    return score if score is not None and math.isfinite(score) else None


def parameters(record: SampleRecord) -> str:
    """The record without its codes: the caption, the negative caption, and a line of settings."""
    sampling, origin, nearest = record.sampling, record.origin, record.nearest
    settings: dict[str, object] = {
        # Readers find this line by its first name; a step of an autoregressive model is a code.
        "Steps": len(record.codes),
        "Sampler": "autoregressive",
        "CFG scale": sampling.guidance,
        "Seed": record.seed,
        "Size": f"{record.side}x{record.side}",
        "Model hash": origin.dalle[:10],
        "Model": origin.run.replace("\\", "/").rstrip("/").rpartition("/")[2],
        "Temperature": sampling.temperature,
        "Top k": sampling.top_k,
        "Top p": sampling.top_p,
        "Candidate": record.candidate,
        "CLIP score": record.clip_score,
        "Log likelihood": record.log_likelihood,
        "Log likelihood ratio": record.log_likelihood_ratio,
        "Training image": nearest.image if nearest is not None and nearest.near_copy else None,
        "Version": f"dalle-mini-impl {origin.version}",
    }
    line = ", ".join(f"{name}: {_quoted(v)}" for name, v in settings.items() if v is not None)
    negative = f"\nNegative prompt: {_clean(record.negative)}" if record.negative else ""
    return f"{_clean(record.caption)}{negative}\n{line}"


def _quoted(value: object) -> str:
    """A value that holds a separator, in quotation marks."""
    text = f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return json.dumps(text) if any(mark in text for mark in ',:\n"') else text


def _clean(text: str) -> str:
    """Text that can be stored as UTF-8, without the byte 0, which ends a chunk's keyword."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


class RecordError(ValueError):
    """An image without a record, or with one that cannot be trusted; one line says why."""


def read_record(image: Image.Image) -> SampleRecord:
    """The record that a PNG file carries; RecordError where there is none or it is wrong."""
    text = image.info.get(CHUNK)
    if not isinstance(text, str):
        raise RecordError("no record of how it was sampled: not from here, or saved again")
    if len(text) > MAX_TEXT:
        raise RecordError(f"a record of {len(text):,} characters; at most {MAX_TEXT:,} are read")
    try:
        return SampleRecord.model_validate(json.loads(text, parse_constant=_refuse))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecordError(f"a wrong record ({where}: {first['msg']})") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise RecordError(f"a record that is not JSON ({reason})") from None


def find_record(image: Image.Image) -> SampleRecord | None:
    """The record that an image carries, None where there is none or it is wrong."""
    try:
        return read_record(image)
    except RecordError:
        return None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
