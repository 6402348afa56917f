"""The panels suite: give the upper half, paint the lower one, judge by rule whether it was changed
as the caption asks.

Each candidate is painted and judged once; best of N by a ranking then looks at the first N.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from PIL import Image

from dalle_mini_impl.data.synthetic.panel_captions import Request, phrase_request, random_request
from dalle_mini_impl.data.synthetic.panels import (
    CHANGE_KINDS,
    Change,
    Panel,
    Panels,
    PanelsConfig,
    compose_panels,
)
from dalle_mini_impl.data.synthetic.rendering import render_panels
from dalle_mini_impl.evaluation.judges.panels import ASPECTS, find_panels, truth
from dalle_mini_impl.evaluation.suites.prompts import HALVES, SPLITS, Half
from dalle_mini_impl.evaluation.suites.shapes import (
    RANKINGS,
    Cell,
    SuiteSettings,
    choices,
    shipped_ranking,
)
from dalle_mini_impl.images import to_tensor, to_uint8
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.sampling.samples import Samples

SAME = Change("same")

OVERALL = "all changes"
"""The group of every prompt."""


@dataclass(frozen=True)
class PanelPrompt:
    """A caption, and the image whose upper half is given with it."""

    caption: str
    request: Request
    panels: Panels
    half: Half

    def given(self, image_size: int) -> Image.Image:
        """What the model is shown: the upper half over a lower one that holds nothing yet."""
        upper = self.panels.upper
        return render_panels(Panels(upper, Panel((), upper.background)), image_size)


@dataclass(frozen=True)
class PanelFailure:
    """The chosen image of a prompt, where the lower half is not as asked."""

    image: Image.Image
    lower: Panel
    """What the judge saw in the lower half."""
    place: int
    """Which candidate it is."""


@dataclass(frozen=True)
class PanelOutcome:
    """What came of one prompt at one guidance scale."""

    prompt: PanelPrompt
    guidance: float
    seed: int
    """Of the first candidate; candidate i has seed + i."""
    truths: tuple[dict[str, bool], ...]
    """Which aspects of the lower half are right, for each candidate."""
    chosen: dict[tuple[int, str], int]
    """The candidate that each ranking takes among the first N."""
    failure: PanelFailure | None
    """By the run's own ranking among all candidates."""


def panel_prompts(config: PanelsConfig, per_change: int, seed: int = 0) -> list[PanelPrompt]:
    """`per_change` fresh prompts for each kind of change and half, in the order of CHANGE_KINDS.

    In the held-out half the image has a composition that training never shows, above or below.
    """
    prompts: list[PanelPrompt] = []
    for kind in CHANGE_KINDS:
        for half in HALVES:
            rng = random.Random(f"panel suite/{config.seed}/{seed}/{kind}/{half}")
            for _ in range(per_change):
                number = 2 if rng.random() < config.two_objects else 1
                panels, change = compose_panels(rng, number, kind, SPLITS[half], config)
                request = random_request(panels, change, rng)
                prompts.append(PanelPrompt(phrase_request(request, rng), request, panels, half))
    return prompts


def run_panel_suite(
    model: TextToImage,
    config: PanelsConfig,
    settings: SuiteSettings,
    report: Callable[[str], None] = print,
) -> list[PanelOutcome]:
    """Paint and judge every prompt at every guidance scale."""
    prompts = panel_prompts(config, settings.per_task, settings.seed)
    size, most = model.image_tokenizer.image_size, max(settings.candidates)
    outcomes: list[PanelOutcome] = []
    for guidance in settings.guidance:
        sampling = model.sampling.model_copy(
            update={"guidance": guidance, "candidates": most, "batch_size": settings.batch_size}
        )
        for at, prompt in enumerate(prompts):
            given = model.given_by_rows(prompt.given(size), model.image_tokenizer.grid // 2)
            # Far apart, so that no two prompts share noise and their outcomes are independent.
            seed = (settings.seed << 32) + at * max(most, 1024)
            samples = next(model.sample([prompt.caption], [seed], sampling, given))
            shipped = shipped_ranking(model)
            outcomes.append(judged(prompt, guidance, samples, settings.candidates, shipped))
            if (at + 1) % max(1, len(prompts) // 10) == 0:
                report(f"guidance {guidance:g}: {at + 1:,} of {len(prompts):,} prompts")
    return outcomes


def judged(
    prompt: PanelPrompt,
    guidance: float,
    samples: Samples,
    candidates: Sequence[int],
    shipped: str,
) -> PanelOutcome:
    """Judge the lower half of every candidate by the upper half that was given."""
    given, change = prompt.panels.upper, prompt.request.change
    images = to_uint8(samples.pixels)
    seen = [find_panels(image)[1] for image in images]
    truths = tuple(truth(change, given, lower) for lower in seen)
    chosen = choices(samples, candidates)
    final = chosen[max(candidates), shipped]
    right = all(truths[final].values())
    failure = None if right else PanelFailure(Image.fromarray(images[final]), seen[final], final)
    return PanelOutcome(prompt, guidance, samples.seeds[0], truths, chosen, failure)


def count_panel_cells(outcomes: Iterable[PanelOutcome], candidates: Sequence[int]) -> list[Cell]:
    """Every share that the outcomes hold, each change's and overall.

    The score "all claims" asks that every aspect is right.
    """
    groups: dict[tuple[float, str, str], list[PanelOutcome]] = defaultdict(list)
    for outcome in outcomes:
        for group in (outcome.prompt.request.change.kind, OVERALL):
            groups[outcome.guidance, group, outcome.prompt.half].append(outcome)
    return [
        Cell(
            guidance,
            group,
            half,
            score,
            count,
            ranking,
            sum(_passes(outcome, score, count, ranking) for outcome in members),
            len(members),
        )
        for (guidance, group, half), members in groups.items()
        for score in ("all claims", *ASPECTS)
        for count in candidates
        for ranking in RANKINGS
    ]


def _passes(outcome: PanelOutcome, score: str, count: int, ranking: str) -> bool:
    truths = outcome.truths[:count]
    if ranking != "oracle":
        truths = (outcome.truths[outcome.chosen[count, ranking]],)
    return any(all(t.values()) if score == "all claims" else t[score] for t in truths)


@torch.inference_mode()
def judge_panel_reconstructions(
    model: TextToImage, prompts: Sequence[PanelPrompt]
) -> list[tuple[str, str, int, int]]:
    """How many whole images the judge still reads rightly after encoding and decoding.

    Rows of half, "upper" or "lower", successes and trials: the bound of what painting can reach.
    """
    size = model.image_tokenizer.image_size
    rows: list[tuple[str, str, int, int]] = []
    for half in HALVES:
        own = [prompt for prompt in prompts if prompt.half == half]
        right = {"upper": 0, "lower": 0}
        for prompt in own:
            pixels = to_tensor([render_panels(prompt.panels, size)], size).to(model.device)
            decoded = model.image_tokenizer.decode(model.image_tokenizer.encode(pixels))
            found = find_panels(to_uint8(decoded)[0])
            upper = prompt.panels.upper
            right["upper"] += all(truth(SAME, upper, found[0]).values())
            right["lower"] += all(truth(prompt.request.change, upper, found[1]).values())
        rows += [(half, name, count, len(own)) for name, count in right.items()]
    return rows


def panel_figures(
    outcomes: Sequence[PanelOutcome], cells: Sequence[Cell], settings: SuiteSettings
) -> dict[str, object]:
    """All of it as JSON values, down to each candidate of each prompt."""
    return {
        "settings": asdict(settings),
        "scores": [cell.to_dict() for cell in cells],
        "prompts": [
            {
                "guidance": outcome.guidance,
                "half": outcome.prompt.half,
                "caption": outcome.prompt.caption,
                "request": outcome.prompt.request.to_dict(),
                "upper": outcome.prompt.panels.upper.to_dict(),
                "seed": outcome.seed,
                "wrong": [[k for k, held in t.items() if not held] for t in outcome.truths],
            }
            for outcome in outcomes
        ],
    }
