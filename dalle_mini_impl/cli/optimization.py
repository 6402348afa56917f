"""What `dalle optimize` does once its options are known: load, start, push, write."""

import time
from pathlib import Path

import torch
from PIL import Image, ImageColor
from torch import Tensor

from dalle_mini_impl.cli.optimize import OptimizeArguments, start_of
from dalle_mini_impl.cli.sample import open_image, write_json
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.images import contact_sheet, save_png, to_images, to_tensor
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.precision import best_device
from dalle_mini_impl.retrieval.encoder import JointEncoder
from dalle_mini_impl.retrieval.loading import load_encoder
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.runs.newest import newest
from dalle_mini_impl.sampling.draw import SamplingConfig
from dalle_mini_impl.vqgan_clip.code_prior import CodePrior
from dalle_mini_impl.vqgan_clip.code_space import CodeSpace
from dalle_mini_impl.vqgan_clip.loop import Proposals, Snapshot, optimize
from dalle_mini_impl.vqgan_clip.prompts import Prompt, PromptScore, parse_prompt
from dalle_mini_impl.vqgan_clip.record import curve, save_film
from dalle_mini_impl.vqgan_clip.result import OptimizeResult

SHOWN = 256
"""Side in pixels that small images are magnified to in films."""


def paint(arguments: OptimizeArguments) -> None:
    """Load the run, push from the start and write what came of it."""
    weights = "clip" if arguments.clip is None else "image_tokenizer"
    run = RunFolder.open(arguments.run) if arguments.run else newest(weights=weights)
    device = arguments.device or best_device()
    clip = load_encoder(run.path, arguments.clip, device)
    texts = [parse_prompt(prompt) for prompt in arguments.prompt]
    if arguments.text is not None:
        texts.insert(0, Prompt(arguments.text))
    images = [parse_prompt(prompt) for prompt in arguments.image_prompt]
    opened = [(open_image("--image-prompt", Path(p.target)), p.weight) for p in images]
    score = PromptScore.of(clip, texts, opened)

    sampled = start_of(arguments) == "sample"
    asked = arguments.prior > 0 and run.has_weights("dalle")
    if arguments.prior and not asked and not sampled:
        print(f"{run.path} has no transformer yet: painting without the code prior")
    model = TextToImage.from_pretrained(run, device) if sampled or asked else None
    tokenizer = model.image_tokenizer if model else frozen(load_image_tokenizer(run), device)
    space = CodeSpace(tokenizer)
    start = begin(arguments, space, model)
    settings = arguments.settings
    if not run.experiment.data.horizontal_flip and settings.cutouts.flip:
        print("--cutouts.flip: this run was trained without mirrored images")
    film = arguments.film
    moves = film.zoom != 1 or film.pan != (0.0, 0.0)
    recorder = Recorder(arguments, settings.steps)
    proposals = propose(arguments, model, space) if model and asked else None
    painted = optimize(
        space.decode,
        score,
        start,
        settings,
        torch.Generator().manual_seed(arguments.seed),
        size=clip.image_size,
        limits=space.limits,
        penalty=space.penalty(arguments.nearness) if arguments.nearness else None,
        travel=space.travel(film.zoom, film.pan) if moves else None,
        travel_every=film.every,
        proposals=proposals,
        progress=recorder,
    )
    write(arguments, run, clip, painted, space, recorder.frames)


def begin(arguments: OptimizeArguments, space: CodeSpace, model: TextToImage | None) -> Tensor:
    """The latents to start from."""
    count, generator = arguments.num_images, torch.Generator().manual_seed(arguments.seed)
    match start_of(arguments):
        case "image" if arguments.init is not None:
            image = open_image("--init", arguments.init)
            pixels = to_tensor([image], space.tokenizer.image_size)
            return space.from_pixels(pixels).repeat(count, 1, 1, 1)
        case "solid":
            try:
                color = ImageColor.getrgb(arguments.color)[:3]
            except ValueError as error:
                raise ConfigError(f"--color {arguments.color!r}: {error}") from error
            return space.solid(count, [channel / 255 for channel in color])
        case "noise":
            return space.noise(count, generator)
        case "sample" if model is not None and arguments.text is not None:
            drawn = max(count, model.sampling.candidates if arguments.refine else count)
            config = SamplingConfig(
                **{**model.sampling.model_dump(), "candidates": drawn, "num_images": count}
            )
            samples = next(model.sample([arguments.text], [arguments.seed], config))
            best = samples.order(config.rank_by if arguments.refine else "none")[:count]
            return space.from_codes(samples.codes[best])
    return space.random(count, generator)


def propose(arguments: OptimizeArguments, model: TextToImage, space: CodeSpace) -> Proposals:
    """What the transformer proposes, given the text or for images in general."""
    said = arguments.text if arguments.prior_text and arguments.text else ""
    captions = torch.from_numpy(model.captions.encode([said])).to(model.device)
    prior = CodePrior(model.dalle, space, captions, arguments.proposals)
    return Proposals(prior.propose, prior.cost(arguments.prior))


class Recorder:
    """Prints progress, keeps frames and writes a preview at every frame."""

    def __init__(self, arguments: OptimizeArguments, steps: int):
        self.out, self.film, self.steps = arguments.out, arguments.film, steps
        self.frames: list[Image.Image] = []
        self.begun = time.monotonic()
        for old in (self.out / "frames").glob("*.png"):
            old.unlink()  # Frames of an earlier painting would mix with these.

    def __call__(self, snapshot: Snapshot) -> None:
        step = int(snapshot.record["step"])
        if step % self.film.every and step != self.steps:
            return
        image = to_images(snapshot.images[:1])[0]
        self.frames.append(magnified(image))
        save_png(image, self.out / "frames" / f"{step:05d}.png")
        save_png(contact_sheet(to_images(snapshot.images)), self.out / "preview.png")
        took = (time.monotonic() - self.begun) / (step + 1)
        print(
            f"step {step}/{self.steps}  loss {snapshot.record['loss']:.4f}  "
            f"score {snapshot.record['score']:.4f}  best {snapshot.record['best']:.4f}  "
            f"{1000 * took:.0f} ms/step",
            flush=True,
        )


def write(
    arguments: OptimizeArguments,
    run: RunFolder,
    clip: JointEncoder,
    painted: OptimizeResult,
    space: CodeSpace,
    frames: list[Image.Image],
) -> None:
    """Images, sheet, film, curve and result.json; then what was reached, in a line."""
    out = arguments.out
    order = painted.scores.argsort(descending=True).tolist()
    images, first = to_images(painted.images), to_images(painted.first_images)
    before, after = (
        similarity(clip, arguments.text, pixels)
        for pixels in (painted.first_images, painted.images)
    )
    codes = space.codes(painted.latents).tolist()
    records, shown, captions = [], [], []
    for place, row in enumerate(order):
        name = "image.png" if place == 0 else f"image-{place:02d}.png"
        save_png(images[row], out / name)
        shown += [first[row], images[row]]
        captions += [f"start {painted.first_scores[row]:.3f}", f"best {painted.scores[row]:.3f}"]
        records.append(
            {
                "file": name,
                "step": int(painted.steps[row]),
                "score": {
                    "start": float(painted.first_scores[row]),
                    "best": float(painted.scores[row]),
                },
                "clip_score": {"start": before[row], "best": after[row]},
                "codes": codes[row],
            }
        )
    scale = max(1, SHOWN // images[0].width)
    save_png(contact_sheet(shown, captions, columns=2, scale=scale), out / "sheet.png")
    save_png(curve(painted.history), out / "loss.png")
    if arguments.film.format != "none":
        save_film(frames, out / f"film.{arguments.film.format}", arguments.film.per_second)
    settings = {
        name: value.model_dump() if hasattr(value, "model_dump") else value
        for name, value in vars(arguments).items()
    }
    plain = {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()}
    result = {
        "run": str(run.path),
        "arguments": plain,
        "interrupted": painted.interrupted,
        "images": records,
        "history": painted.history,
    }
    write_json(out / "result.json", result)
    best = records[0]
    stopped = "interrupted; " if painted.interrupted else ""
    cosine = best["clip_score"]
    said = ""
    if arguments.text is not None:
        said = f" (cosine with the text {cosine['start']:.3f}, then {cosine['best']:.3f})"
    print(
        f"{stopped}score {best['score']['start']:.4f} at the start, {best['score']['best']:.4f} "
        f"at step {best['step']}{said}: {out / 'image.png'}"
    )


def similarity(clip: JointEncoder, text: str | None, pixels: Tensor) -> list[float | None]:
    """Cosine similarity of each image with the text."""
    if text is None:
        return [None] * len(pixels)
    target = clip.encode_texts([text])[0]
    return (clip.encode_images(to_images(pixels)) @ target).tolist()


def magnified(image: Image.Image) -> Image.Image:
    """Small images made large enough to watch, with sharp pixels."""
    scale = max(1, SHOWN // image.width)
    size = (image.width * scale, image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST)
