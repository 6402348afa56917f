"""What `dalle optimize` does with its options: score, start, motion and proposals."""

from pathlib import Path

import torch
from PIL import ImageColor
from torch import Tensor

from dalle_mini_impl.cli.image_files import open_image
from dalle_mini_impl.cli.optimize_arguments import OptimizeArguments, start_of
from dalle_mini_impl.cli.optimize_output import ProgressWriter, summary, write
from dalle_mini_impl.cli.output import Result
from dalle_mini_impl.cli.run_options import open_run
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.pipeline.recorded_codes import encode_image
from dalle_mini_impl.precision import best_device
from dalle_mini_impl.retrieval.encoder import JointEncoder
from dalle_mini_impl.retrieval.loading import load_encoder
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.vqgan_clip.code_prior import CodePrior
from dalle_mini_impl.vqgan_clip.code_space import CodeSpace
from dalle_mini_impl.vqgan_clip.objective import Objective
from dalle_mini_impl.vqgan_clip.optimize import Motion, Proposals, optimize
from dalle_mini_impl.vqgan_clip.prompts import PromptScore, WeightedPrompt, parse_prompt


def optimize_images(arguments: OptimizeArguments, result: Result) -> None:
    """Load the run, optimize from the start and write the images."""
    run = open_run(arguments.run, "clip" if arguments.clip is None else "image_tokenizer")
    device = arguments.device or best_device()
    clip = load_encoder(run.path, arguments.clip, device)
    score = prompt_score(arguments, clip)

    from_sample = start_of(arguments) == "sample"
    use_prior = arguments.prior > 0 and run.has_weights("dalle")
    if arguments.prior and not use_prior and not from_sample:
        print(f"{run.name} has no transformer yet: optimizing without the code prior")
    model = TextToImage.from_pretrained(run, device) if from_sample or use_prior else None
    space = CodeSpace(model.image_tokenizer if model else frozen(load_image_tokenizer(run), device))
    if not run.experiment.data.horizontal_flip and arguments.settings.cutouts.flip:
        print("--cutouts.flip: this run was trained without mirrored images")
    writer = ProgressWriter(arguments)
    optimized = optimize(
        Objective(
            space.decode,
            score,
            clip.image_size,
            space.penalty(arguments.nearness) if arguments.nearness else None,
        ),
        start_latents(arguments, space, model),
        arguments.settings,
        torch.Generator().manual_seed(arguments.seed),
        limits=space.limits,
        motion=camera_motion(arguments, space),
        proposals=code_proposals(arguments, model, space) if model and use_prior else None,
        progress=writer,
    )
    codes = space.codes(optimized.latents)
    values = write(arguments, run, clip, optimized, codes, writer.frames)
    result(values, lambda: print(summary(values)))


def prompt_score(arguments: OptimizeArguments, clip: JointEncoder) -> PromptScore:
    """The score by all texts and images that are given."""
    texts = [parse_prompt(prompt) for prompt in arguments.prompt]
    if arguments.text is not None:
        texts.insert(0, WeightedPrompt(arguments.text))
    images = [parse_prompt(prompt) for prompt in arguments.image_prompt]
    opened = [(open_image("--image-prompt", Path(p.target)), p.weight) for p in images]
    return PromptScore.of(clip, texts, opened)


def start_latents(
    arguments: OptimizeArguments, space: CodeSpace, model: TextToImage | None
) -> Tensor:
    """The latents to start from."""
    count, generator = arguments.num_images, torch.Generator().manual_seed(arguments.seed)
    match start_of(arguments):
        case "image" if arguments.init is not None:
            image = open_image("--init", arguments.init)
            codes = encode_image(space.tokenizer, image)[None]
            return space.from_codes(codes).repeat(count, 1, 1, 1)
        case "solid":
            try:
                color = ImageColor.getrgb(arguments.color)[:3]
            except ValueError as error:
                raise ConfigError(f"--color {arguments.color!r}: {error}") from error
            return space.solid(count, [channel / 255 for channel in color])
        case "noise":
            return space.noise(count, generator)
        case "sample" if model is not None and arguments.text is not None:
            candidates = max(count, model.sampling.candidates if arguments.refine else count)
            config = model.sampling.model_copy(update={"candidates": candidates})
            samples = next(model.sample([arguments.text], [arguments.seed], config))
            best = samples.order(config.rank_by if arguments.refine else "none")[:count]
            return space.from_codes(samples.codes[best])
    return space.random(count, generator)


def camera_motion(arguments: OptimizeArguments, space: CodeSpace) -> Motion | None:
    """The zoom and pan of the film, if any."""
    film = arguments.film
    if film.zoom == 1 and film.pan == (0.0, 0.0):
        return None
    return Motion(space.camera_motion(film.zoom, film.pan), film.every)


def code_proposals(arguments: OptimizeArguments, model: TextToImage, space: CodeSpace) -> Proposals:
    """Likelier codes by the transformer, with the text as its caption or with none."""
    caption = arguments.text if arguments.prior_text and arguments.text else ""
    captions = torch.from_numpy(model.captions.encode([caption])).to(model.device)
    prior = CodePrior(model.dalle, space, captions, arguments.proposals)
    return Proposals(prior.propose, prior.cost(arguments.prior))
