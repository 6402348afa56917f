"""The keyword arguments of TextToImage: typed for editors, checked where they are used."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import ValidationError
from typing_extensions import TypedDict

from dalle_mini_impl.experiment import explain
from dalle_mini_impl.pipeline.previews import Callback
from dalle_mini_impl.sampling.config import Ranking, SamplingConfig


class SamplingKeywords(TypedDict, total=False):
    """The fields of SamplingConfig, which describes them and has their limits."""

    num_images: int
    candidates: int
    guidance: float
    guidance_schedule: Literal["constant", "rising", "falling"]
    guidance_until: float
    temperature: float
    top_k: int
    top_p: float
    rank_by: Ranking
    batch_size: int
    compile: Literal["auto", "on", "off"]
    precision: Literal["auto", "fp32", "bf16"]


class CallKeywords(SamplingKeywords, total=False):
    """All keyword arguments of `TextToImage.__call__` that also complete and inpaint take."""

    seed: int | Sequence[int] | None
    generator: torch.Generator | None
    negative: str
    avoid_copies: bool
    callback: Callback | None


def changed_sampling(config: SamplingConfig, settings: Mapping[str, Any]) -> SamplingConfig:
    """`config` with these settings, and at least as many candidates as images.

    Raises TypeError for a name that does not exist, ConfigError for a value that cannot be.
    """
    for name in settings.keys() - SamplingConfig.model_fields.keys():
        known = CallKeywords.__annotations__
        near = [other for other in known if name.startswith(other)]
        near = near or difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise TypeError(f"TextToImage has no keyword argument {name!r}; {hint}")
    try:
        changed = SamplingConfig.model_validate({**config.model_dump(), **settings})
    except ValidationError as error:
        raise explain(error, "TextToImage", SamplingConfig) from error
    return changed.model_copy(update={"candidates": max(changed.candidates, changed.num_images)})


def starting_seeds(
    captions: int, seed: int | Iterable[int] | None, generator: torch.Generator | None
) -> list[int]:
    """The seed of each caption's first candidate: from the generator, as given, or 0.

    Raises ValueError if both are given, or seeds for another number of captions.
    """
    if generator is not None:
        if seed is not None:
            raise ValueError("seed and generator exclude each other: give one")
        device = generator.device
        return torch.randint(2**32, (captions,), generator=generator, device=device).tolist()
    if not isinstance(seed, Iterable):
        return [int(seed or 0)] * captions
    seeds = list(seed)
    if len(seeds) != captions:
        raise ValueError(f"{len(seeds)} seeds for {captions} captions: give one for each, or one")
    return seeds
