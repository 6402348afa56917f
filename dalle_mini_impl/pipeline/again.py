"""Sampling an image again from the record that its file carries."""

from dataclasses import replace

import torch
from PIL import Image

from dalle_mini_impl.images import to_tensor
from dalle_mini_impl.pipeline.result import Result
from dalle_mini_impl.pipeline.text_to_image import TextToImage
from dalle_mini_impl.sampling.given import Given
from dalle_mini_impl.sampling.record import Origin, RecordError, read_record


def sample_again(model: TextToImage, image: Image.Image) -> Result:
    """The image sampled with everything that its record says; in fp32, with the same bytes.

    Raises RecordError where it has no usable record, or was sampled by other weights.
    """
    record = read_record(image)
    if model.origin is None or not same_models(record.origin, model.origin):
        raise RecordError("a record of other weights than the run has")
    tokenizer = model.image_tokenizer
    if len(record.codes) != tokenizer.grid**2 or max(record.codes) >= tokenizer.code_count:
        raise RecordError("a record with codes that the run's image tokenizer does not have")
    given = None
    if record.given is not None:
        # What was pasted is in the image itself, its seam included.
        pixels = to_tensor([image], tokenizer.image_size)[0] if record.pasted else None
        given = Given(torch.tensor(record.given, device=model.device), pixels)
    # The image's own seed decides its codes, so that no other candidate is needed.
    alone = record.sampling.model_dump() | {"candidates": 1, "num_images": 1}
    (result,) = model(
        record.caption, seed=record.seed, negative=record.negative, given=given, **alone
    )
    origin = record.origin.model_copy(update={"version": model.origin.version})
    return replace(
        result,
        candidate=record.candidate,
        nearest=record.nearest,
        sampling=record.sampling,
        origin=origin,
    )


def same_models(one: Origin, other: Origin) -> bool:
    """Whether both have the same weights."""
    names = ("image_tokenizer", "dalle", "clip")
    return all(getattr(one, name) == getattr(other, name) for name in names)
