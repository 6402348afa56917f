"""The shapes suite: paint every prompt, judge every candidate by rule, count what holds.

Each candidate is painted and judged once; best of N by a ranking then looks at the first N.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from PIL import Image

from dalle_mini_impl.data.synthetic.claims import CLAIM_KINDS, verify_claims
from dalle_mini_impl.data.synthetic.scenes import Scene
from dalle_mini_impl.data.synthetic.shapes import ShapesConfig
from dalle_mini_impl.evaluation.judges.scenes import find_scene
from dalle_mini_impl.evaluation.suites.prompts import (
    HALVES,
    Prompt,
    interval,
    scene_prompts,
    solved,
    suite,
)
from dalle_mini_impl.images import to_uint8
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.sampling.ranking import RANKINGS as MODEL_RANKINGS
from dalle_mini_impl.sampling.ranking import Ranking, available_ranking
from dalle_mini_impl.sampling.samples import Samples

RANKINGS: tuple[Ranking | Literal["oracle"], ...] = (*MODEL_RANKINGS, "oracle")
"""Ways to choose among N candidates; none takes the first, oracle any that passes."""

SCENES = ("scene of one object", "scene of two objects", "scene of three objects")
"""Groups of scenes' captions: apart from the tasks, of which one is called "two objects"."""


@dataclass(frozen=True)
class SuiteSettings:
    """What is asked for and how much of it."""

    guidance: tuple[float, ...]
    candidates: tuple[int, ...] = (1, 4, 16)
    """Best of how many; the largest is painted, the others are its beginnings."""
    per_task: int = 100
    """Prompts for each task or object count and half."""
    seed: int = 0
    batch_size: int = 128


@dataclass(frozen=True)
class Failure:
    """The chosen image of a prompt, where not all claims hold."""

    image: Image.Image
    seen: Scene
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of one prompt at one guidance scale."""

    prompt: Prompt
    guidance: float
    seed: int
    """Of the first candidate; candidate i has seed + i."""
    truths: tuple[dict[str, bool], ...]
    """Which kinds of claim hold, for each candidate."""
    chosen: dict[tuple[int, str], int]
    """The candidate that each ranking takes among the first N."""
    clip: tuple[float | None, ...]
    likelihood: tuple[float, ...]
    ratio: tuple[float, ...]
    failure: Failure | None
    """By the run's own ranking among all candidates."""


@dataclass(frozen=True)
class Cell:
    """How many of a group's prompts pass a score."""

    guidance: float
    group: str
    half: str
    score: str
    """ "task" (the task's own kinds), "all claims", or one kind of claim."""
    candidates: int
    ranking: str
    successes: int
    trials: int

    @property
    def share(self) -> float:
        """The successes among the trials."""
        return self.successes / max(self.trials, 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        return interval(self.successes, self.trials)

    def to_dict(self) -> dict[str, str | float | int]:
        """All of it as JSON values."""
        low, high = self.bounds
        return {**asdict(self), "share": self.share, "low": low, "high": high}


def run_suite(
    model: TextToImage,
    config: ShapesConfig,
    settings: SuiteSettings,
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Paint and judge the tasks' prompts and captions of scenes at every guidance scale."""
    prompts = all_prompts(config, settings)
    most = max(settings.candidates)
    # Far apart, so that no two prompts share noise and their outcomes are independent.
    seeds = [(settings.seed << 32) + at * max(most, 1024) for at in range(len(prompts))]
    outcomes: list[Outcome] = []
    for guidance in settings.guidance:
        sampling = model.sampling.model_copy(
            update={"guidance": guidance, "candidates": most, "batch_size": settings.batch_size}
        )
        sampled = model.sample([prompt.caption for prompt in prompts], seeds, sampling)
        for at, samples in enumerate(sampled):
            outcomes.append(
                judged(prompts[at], guidance, samples, settings.candidates, shipped_ranking(model))
            )
            if (at + 1) % max(1, len(prompts) // 10) == 0:
                report(f"guidance {guidance:g}: {at + 1:,} of {len(prompts):,} prompts")
    return outcomes


def all_prompts(config: ShapesConfig, settings: SuiteSettings) -> list[Prompt]:
    """The tasks' prompts, then captions of scenes with one object, two, three."""
    prompts = suite(config, settings.per_task, settings.seed)
    for objects in range(1, config.max_objects + 1):
        for half in HALVES:
            prompts += scene_prompts(config, half, objects, settings.per_task, settings.seed)
    return prompts


def shipped_ranking(model: TextToImage) -> str:
    """How the run orders its candidates; what needs a CLIP becomes the likelihood without one."""
    return available_ranking(model.sampling.rank_by, model.clip is not None)


def judged(
    prompt: Prompt,
    guidance: float,
    samples: Samples,
    candidates: Sequence[int],
    shipped: str,
) -> Outcome:
    """Judge every candidate and note which one each ranking takes."""
    images = to_uint8(samples.pixels)
    scenes = [find_scene(image) for image in images]
    truths = tuple(verify_claims(prompt.claims, scene) for scene in scenes)
    chosen = choices(samples, candidates)
    final = chosen[max(candidates), shipped]
    failure = None
    if not all(truths[final].values()):
        failure = Failure(Image.fromarray(images[final]), scenes[final], samples.seeds[final])
    scores = samples.clip_scores
    clip = (None,) * len(samples) if scores is None else tuple(scores.tolist())
    likelihood = tuple(samples.log_likelihoods.tolist())
    ratio = tuple(samples.log_likelihood_ratios.tolist())
    first = samples.seeds[0]
    return Outcome(prompt, guidance, first, truths, chosen, clip, likelihood, ratio, failure)


def choices(samples: Samples, candidates: Sequence[int]) -> dict[tuple[int, str], int]:
    """The place of what each ranking takes among the first N, by N and ranking."""
    return {
        (count, by): samples.order(by, count)[0] for count in candidates for by in MODEL_RANKINGS
    }


def group_of(prompt: Prompt) -> str:
    """The table row that a prompt belongs to: its task, or how many objects its scene has."""
    return prompt.task if prompt.task != "scene" else SCENES[prompt.objects - 1]


def count_cells(outcomes: Iterable[Outcome], candidates: Sequence[int]) -> list[Cell]:
    """Every share that the outcomes hold: groups × halves × scores × candidates × rankings."""
    groups: dict[tuple[float, str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        half = outcome.prompt.half
        groups[outcome.guidance, group_of(outcome.prompt), half].append(outcome)
        if outcome.prompt.task != "scene":
            groups[outcome.guidance, "all tasks", half].append(outcome)
    return [
        Cell(guidance, group, half, score, count, ranking, sum(passes), len(passes))
        for (guidance, group, half), members in groups.items()
        for score in ("task", "all claims", *CLAIM_KINDS)
        for count in candidates
        for ranking in RANKINGS
        if (passes := list(_passes(members, score, count, ranking)))
    ]


def _passes(outcomes: Sequence[Outcome], score: str, count: int, ranking: str) -> Iterator[bool]:
    """Whether each prompt that the score is about passes it."""
    for outcome in outcomes:
        if score == "task" and outcome.prompt.task == "scene":
            continue
        if score in CLAIM_KINDS and score not in outcome.truths[0]:
            continue
        if ranking == "oracle":
            yield any(passes(outcome.prompt, truth, score) for truth in outcome.truths[:count])
        else:
            truth = outcome.truths[outcome.chosen[count, ranking]]
            yield passes(outcome.prompt, truth, score)


def passes(prompt: Prompt, truth: dict[str, bool], score: str) -> bool:
    """Whether a judged image passes a score (see Cell)."""
    if score == "task":
        return solved(prompt, truth)
    return all(truth.values()) if score == "all claims" else truth[score]


def figures(
    outcomes: Sequence[Outcome], cells: Sequence[Cell], settings: SuiteSettings
) -> dict[str, object]:
    """All of it as JSON values, down to each candidate of each prompt."""
    return {
        "settings": asdict(settings),
        "scores": [cell.to_dict() for cell in cells],
        "prompts": [
            {
                "guidance": outcome.guidance,
                "group": group_of(outcome.prompt),
                "half": outcome.prompt.half,
                "caption": outcome.prompt.caption,
                "claims": outcome.prompt.claims.to_dict(),
                "seed": outcome.seed,
                "wrong": [[k for k, held in t.items() if not held] for t in outcome.truths],
                "clip_score": [c if c is None else round(c, 4) for c in outcome.clip],
                "log_likelihood": [round(r, 2) for r in outcome.likelihood],
                "log_likelihood_ratio": [round(r, 2) for r in outcome.ratio],
            }
            for outcome in outcomes
        ],
    }
