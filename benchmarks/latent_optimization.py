"""How well does optimizing codes along CLIP's gradient follow the prompt, by independent judges?

    python -m benchmarks.latent_optimization --run DIR --judge-run DIR2 --prompts 50

For captions of new random scenes of one and two objects: random codes → optimized as `dalle
optimize` does, and the transformer's best candidate → refined as `--refine` does. The scene judge
decides by rule which claims hold; DIR2's CLIP, trained with another seed, says whether the text
score rose for it too. By chance: the same images, judged by the next prompt's claims.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from dalle_mini_impl.cli.optimize_arguments import REFINING, OptimizeArguments
from dalle_mini_impl.data.synthetic.claims import CLAIM_KINDS
from dalle_mini_impl.evaluation.measures.intervals import wilson_interval
from dalle_mini_impl.evaluation.suites.shapes import ShapesPrompt, scene_prompts
from dalle_mini_impl.images import contact_sheet, save_png, to_images
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.retrieval.encoder import JointEncoder, RunClip
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.vqgan_clip.code_prior import CodePrior
from dalle_mini_impl.vqgan_clip.code_space import CodeSpace
from dalle_mini_impl.vqgan_clip.objective import Objective
from dalle_mini_impl.vqgan_clip.optimize import Proposals, Snapshot, optimize
from dalle_mini_impl.vqgan_clip.prompts import spherical_distance
from dalle_mini_impl.vqgan_clip.result import OptimizeResult

SHOWN = 8
POOLED = "all attributes"


@dataclass(frozen=True)
class Arguments:
    """What is sampled and who judges it."""

    run: Path
    """A run on shapes with all stages."""
    judge_run: Path
    """A run whose CLIP was trained with another seed."""
    prompts: int = 50
    starts: tuple[Literal["random", "best"], ...] = ("random", "best")
    steps: int = 120
    """Steps from random codes; the refiner takes half as many."""
    cutouts: int = 8
    """Views at each step."""
    prior: bool = True
    """Whether the transformer proposes; not, is plain VQGAN+CLIP."""
    prior_text: bool = False
    """Whether it is asked with the text from random codes as well, not only to refine."""
    seed: int = 0
    out: Path = Path("outputs/latent_optimization")


class OwnCaption:
    """Each row's score for its own caption; views of the rows come with the rows fastest."""

    def __init__(self, clip: JointEncoder, captions: Sequence[str]):
        self.clip, self.targets = clip, clip.encode_texts(captions)

    def __call__(self, pixels: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m"]:
        rows = len(self.targets)
        seen = self.clip.embed_pixels(pixels).reshape(-1, rows, self.targets.shape[1])
        scores = [
            -spherical_distance(seen[:, row], self.targets[row : row + 1])[:, 0]
            for row in range(rows)
        ]
        return torch.stack(scores, dim=1).flatten()


def best_candidates(model: TextToImage, prompts: Sequence[ShapesPrompt], seed: int) -> Tensor:
    """Codes of the candidate that the run's own ranking takes for each prompt."""
    config = model.sampling
    seeds = [(seed << 32) + 1024 * at for at in range(len(prompts))]
    samples = model.sample([prompt.caption for prompt in prompts], seeds, config)
    return torch.stack([own.codes[own.order(config.rank_by)[0]] for own in samples])


def optimized(
    arguments: Arguments,
    start: str,
    model: TextToImage,
    clip: JointEncoder,
    asked: list[ShapesPrompt],
) -> OptimizeResult:
    """All prompts optimized as one batch, with the command's own settings."""
    command = OptimizeArguments() if start == "random" else REFINING
    captions = [prompt.caption for prompt in asked]
    space = CodeSpace(model.image_tokenizer)
    generator = torch.Generator().manual_seed(arguments.seed)
    if start == "random":
        latents = space.random(len(asked), generator)
    else:
        latents = space.from_codes(best_candidates(model, asked, arguments.seed))
    steps = arguments.steps if start == "random" else arguments.steps // 2
    cutouts = command.settings.cutouts.model_copy(update={"count": arguments.cutouts})
    settings = command.settings.model_copy(update={"steps": steps, "cutouts": cutouts})
    texts = captions if command.prior_text or arguments.prior_text else [""]
    ids = torch.from_numpy(model.captions.encode(texts)).to(model.device)
    prior = CodePrior(model.dalle, space, ids, command.proposals)

    def say(snapshot: Snapshot) -> None:
        metrics = snapshot.metrics
        if metrics["step"] % 10 == 0:
            print(f"{start}: step {metrics['step']}, best {metrics['best']:.4f}", flush=True)

    return optimize(
        Objective(
            space.decode,
            OwnCaption(clip, captions),
            clip.image_size,
            space.penalty(command.nearness),
        ),
        latents,
        settings,
        generator,
        limits=space.limits,
        proposals=Proposals(prior.propose, prior.cost(command.prior)) if arguments.prior else None,
        progress=say,
    )


def claims_held(pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[ShapesPrompt]) -> list[dict]:
    """Which kinds of each prompt's claims hold for its image."""
    arrays = [np.asarray(image) for image in to_images(pixels)]
    return [p.judge(array).correct for array, p in zip(arrays, prompts, strict=True)]


def shares(truths: Sequence[dict[str, bool]]) -> dict[str, Any]:
    """Successes, trials and share by kind, of all claims and of whole images.

    With Wilson's 95 % interval where each image is one trial: several claims of one image stand
    or fall together, so an interval of all claims would be too narrow.
    """
    held = {kind: [truth[kind] for truth in truths if kind in truth] for kind in CLAIM_KINDS}
    held[POOLED] = [value for truth in truths for value in truth.values()]
    held["whole images"] = [all(truth.values()) for truth in truths]
    return {
        name: {
            "right": sum(values),
            "of": len(values),
            "share": sum(values) / len(values),
            **({} if name == POOLED else {"interval": wilson_interval(sum(values), len(values))}),
        }
        for name, values in held.items()
        if values
    }


def similarity(clip: JointEncoder, pixels: Tensor, prompts: Sequence[ShapesPrompt]) -> list[float]:
    """Cosine similarity of each image with its caption."""
    texts = clip.encode_texts([prompt.caption for prompt in prompts])
    return (clip.encode_images(pixels) * texts).sum(-1).tolist()


def scores(values: Sequence[float]) -> dict[str, float]:
    """Mean and its standard error."""
    return {"mean": float(np.mean(values)), "error": float(np.std(values) / len(values) ** 0.5)}


def measure(pixels: Tensor, prompts: list[ShapesPrompt], clips: dict[str, JointEncoder]) -> dict:
    """What the judges say of images."""
    following = prompts[1:] + prompts[:1]
    return {
        "rule": shares(claims_held(pixels, prompts)),
        "by_chance": shares(claims_held(pixels, following)),
        **{name: scores(similarity(clip, pixels, prompts)) for name, clip in clips.items()},
    }


def table(result: dict[str, Any]) -> str:
    """Markdown of all measured images: one line for each score."""
    names = list(result)
    lines = ["| |" + "|".join(f" {name} " for name in names) + "|", "|---|" + "---|" * len(names)]
    for kind in (POOLED, *CLAIM_KINDS, "whole images"):
        cells = []
        for name in names:
            cell = result[name]["rule"].get(kind)
            text = f"{cell['share']:.0%}" if cell else ""
            if cell and "interval" in cell:
                low, high = cell["interval"]
                text += f" ({low:.0%} to {high:.0%})"
            cells.append(text)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    chance = [result[name]["by_chance"][POOLED]["share"] for name in names]
    lines.append(f"| {POOLED}, next prompt | " + " | ".join(f"{c:.0%}" for c in chance) + " |")
    for name in ("own_clip", "independent_clip"):
        cells = [f"{result[n][name]['mean']:.3f} ± {result[n][name]['error']:.3f}" for n in names]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Arguments) -> None:
    """Optimize, judge, write the table, the figures and a sheet."""
    model = TextToImage.from_pretrained(arguments.run, "cpu")
    own = RunClip.from_run(arguments.run, "cpu")
    scenes = RunFolder.open(arguments.run).experiment.data.shapes
    per = -(-arguments.prompts // 2)
    by_count = [scene_prompts(scenes, "seen", count, per, arguments.seed) for count in (1, 2)]
    prompts = [prompt for pair in zip(*by_count, strict=True) for prompt in pair]
    prompts = prompts[: arguments.prompts]
    clips: dict[str, JointEncoder] = {"own_clip": own}
    by_step: dict[str, Tensor] = {}
    took = {}
    for start in arguments.starts:
        begun = time.monotonic()
        best = optimized(arguments, start, model, own, prompts)
        took[start] = time.monotonic() - begun
        first, last = {
            "random": ("random codes", "optimized"),
            "best": ("transformer's best", "refined"),
        }[start]
        by_step |= {first: best.start_images, last: best.images}
    clips["independent_clip"] = RunClip.from_run(arguments.judge_run, "cpu")
    result = {name: measure(pixels, prompts, clips) for name, pixels in by_step.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(arguments).items()}
    figures = {
        "settings": settings,
        "seconds": took,
        "prompts": [prompt.caption for prompt in prompts],
        "images": result,
    }
    (arguments.out / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    (arguments.out / "table.md").write_text(table(result) + "\n", encoding="utf-8")
    images = [image for pixels in by_step.values() for image in to_images(pixels[:SHOWN])]
    captions = [prompt.caption for prompt in prompts[:SHOWN]]
    labels = [f"{name}: {text}" for name in by_step for text in captions]
    columns = min(SHOWN, len(captions))
    save_png(contact_sheet(images, labels, columns=columns, scale=2), arguments.out / "sheet.png")
    print(table(result))


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
