"""What the prompt suites share: sampling and judging.

A suite is a list of prompts. A prompt knows how its images are judged and in which groups it is
counted. Each candidate is sampled and judged once; best of N then looks at the first N of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8
from torch import Tensor

from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.images import to_uint8
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.sampling.config import SamplingConfig
from dalle_mini_impl.sampling.given import Given
from dalle_mini_impl.sampling.ranking import RANKINGS, available_ranking
from dalle_mini_impl.sampling.samples import Samples

Split = Literal["seen", "held_out"]
"""Whether training shows the composition that a prompt asks for."""

SPLITS: tuple[Split, ...] = ("seen", "held_out")

DATA_SPLITS: dict[Split, Literal["validation", "held_out"]] = {
    "seen": "validation",
    "held_out": "held_out",
}
"""The split of the collection that prompts and scenes are made like."""

ALL_CLAIMS = "all claims"
"""The score that asks for everything at once."""

STRICT = "all claims, strict"
"""The score that asks for clean shapes and no specks as well."""


@dataclass(frozen=True)
class SuiteSettings:
    """What is sampled and how much of it."""

    guidance: tuple[float, ...]
    candidates: tuple[int, ...] = (1, 4, 16)
    """Best of how many; the largest number is sampled, smaller ones take the first of them."""
    per_task: int = 100
    """Prompts for each task, object count or change, and split."""
    seed: int = 0
    batch_size: int = 128


@dataclass(frozen=True)
class Judgment:
    """What a judge says of one image."""

    correct: dict[str, bool]
    """For each kind of claim that the prompt makes, whether it holds."""
    clean: bool
    """Whether all objects have their canonical shapes and nothing else is in the image."""
    seen: str
    """What the detector found in the image, in words."""


@dataclass(frozen=True)
class SuitePrompt(ABC):
    """A caption whose images are judged by rule."""

    caption: str
    split: Split

    @property
    @abstractmethod
    def groups(self) -> tuple[str, ...]:
        """The table rows that the prompt is counted in, the most specific first."""

    @abstractmethod
    def judge(self, image: UInt8[np.ndarray, "h w 3"]) -> Judgment:
        """Judge an image that was sampled for the prompt."""

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """What the prompt asks for, as JSON values."""

    def scores(self, correct: dict[str, bool], clean: bool) -> dict[str, bool]:
        """Which scores an image with this judgment passes."""
        right = all(correct.values())
        return {ALL_CLAIMS: right, STRICT: right and clean, **correct}

    def given_codes(self, model: TextToImage) -> Int[Tensor, "n"] | None:
        """Codes that are given to the model, -1 where it samples; None where it samples all."""
        return None


@dataclass(frozen=True)
class Failure:
    """The chosen image of a prompt, where not all claims hold or its shapes are not clean."""

    candidate: int
    image: UInt8[np.ndarray, "h w 3"]
    seen: str


@dataclass(frozen=True)
class Outcome:
    """The judged candidates of one prompt at one guidance scale."""

    prompt: SuitePrompt
    guidance: float
    seed: int
    """Of the first candidate; candidate i has seed + i."""
    correct: tuple[dict[str, bool], ...]
    """For each candidate which claims hold."""
    clean: tuple[bool, ...]
    """For each candidate whether its shapes are clean."""
    chosen: dict[tuple[int, str], int]
    """The candidate that each ranking takes among the first N, by N and ranking."""
    clip_scores: tuple[float, ...] | None
    log_likelihoods: tuple[float, ...]
    log_likelihood_ratios: tuple[float, ...]
    failure: Failure | None
    """By the run's own ranking among all candidates."""

    def to_dict(self) -> dict[str, Any]:
        """All of it but the image, as JSON values."""
        clip_scores = self.clip_scores and [round(score, 4) for score in self.clip_scores]
        return {
            "guidance": self.guidance,
            "group": self.prompt.groups[0],
            "split": self.prompt.split,
            "caption": self.prompt.caption,
            **self.prompt.details(),
            "seed": self.seed,
            "wrong": [[kind for kind, held in own.items() if not held] for own in self.correct],
            "clean": list(self.clean),
            "clip_score": clip_scores,
            "log_likelihood": [round(value, 2) for value in self.log_likelihoods],
            "log_likelihood_ratio": [round(value, 2) for value in self.log_likelihood_ratios],
        }


def run_suite(
    model: TextToImage,
    prompts: Sequence[SuitePrompt],
    settings: SuiteSettings,
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Sample and judge every prompt at every guidance scale."""
    most = max(settings.candidates)
    seeds = seeds_apart(settings.seed, len(prompts), most)
    ranking = run_ranking(model)
    outcomes: list[Outcome] = []
    for guidance in settings.guidance:
        config = model.sampling.model_copy(
            update={"guidance": guidance, "candidates": most, "batch_size": settings.batch_size}
        )
        for at, samples in enumerate(_sample(model, prompts, seeds, config)):
            outcome = judge_samples(prompts[at], guidance, samples, settings.candidates, ranking)
            outcomes.append(outcome)
            if (at + 1) % max(1, len(prompts) // 10) == 0:
                report(f"guidance {guidance:g}: {at + 1:,} of {counted(len(prompts), 'prompt')}")
    return outcomes


def seeds_apart(seed: int, count: int, candidates: int) -> list[int]:
    """First seeds of the candidates of each caption, so far apart that no two share noise."""
    return [(seed << 32) + at * max(candidates, 1024) for at in range(count)]


def run_ranking(model: TextToImage) -> str:
    """How the run orders its candidates."""
    return available_ranking(model.sampling.rank_by, model.clip is not None)


def _sample(
    model: TextToImage, prompts: Sequence[SuitePrompt], seeds: Sequence[int], config: SamplingConfig
) -> Iterator[Samples]:
    """The candidates of each prompt; prompts with given codes are sampled one at a time."""
    given_codes = [prompt.given_codes(model) for prompt in prompts]
    if all(codes is None for codes in given_codes):
        yield from model.sample([prompt.caption for prompt in prompts], seeds, config)
    else:
        for prompt, seed, codes in zip(prompts, seeds, given_codes, strict=True):
            given = None if codes is None else Given(codes)
            yield from model.sample([prompt.caption], [seed], config, given)


def judge_samples(
    prompt: SuitePrompt,
    guidance: float,
    samples: Samples,
    candidates: Sequence[int],
    ranking: str,
) -> Outcome:
    """Judge every candidate and note which one each ranking takes."""
    images = to_uint8(samples.pixels)
    judgments = [prompt.judge(image) for image in images]
    chosen: dict[tuple[int, str], int] = {
        (count, by): samples.order(by, count)[0] for count in candidates for by in RANKINGS
    }
    final = chosen[max(candidates), ranking]
    failure = None
    if not (judgments[final].clean and all(judgments[final].correct.values())):
        failure = Failure(final, images[final], judgments[final].seen)
    return Outcome(
        prompt,
        guidance,
        samples.seeds[0],
        tuple(judgment.correct for judgment in judgments),
        tuple(judgment.clean for judgment in judgments),
        chosen,
        None if samples.clip_scores is None else tuple(samples.clip_scores.tolist()),
        tuple(samples.log_likelihoods.tolist()),
        tuple(samples.log_likelihood_ratios.tolist()),
        failure,
    )
