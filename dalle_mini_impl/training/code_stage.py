"""The stage that encodes the training images once, into a cache of codes."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dalle_mini_impl.data.augment import ImageStore, load_images
from dalle_mini_impl.data.batches import step_rng
from dalle_mini_impl.data.codes import CodeCache, CodeKey, factor_usage, perplexity
from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.kernels.chunks import rows_at_once
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.objectives.reconstruction import collapse_warning

IMAGES_AT_ONCE = 128
"""Images that are loaded at a time; as many of them are encoded at once as memory allows."""


def encodings_of(experiment: Experiment) -> int:
    """Encodings of each image in the cache."""
    return experiment.transformer.encodings if _differ_by(experiment) else 1


def _differ_by(experiment: Experiment) -> str:
    """What makes an image's encodings after the first differ from it; empty if nothing does."""
    data = experiment.data
    settings = {
        "random_resized_crop": data.random_resized_crop,
        "random_shift": data.random_shift,
        "horizontal_flip": data.horizontal_flip,
        "posterior_temperature": experiment.transformer.posterior_temperature,
    }
    return ", ".join(f"{name}={value}" for name, value in settings.items() if value)


def encode_images(context: StageContext) -> None:
    """Fill the code cache unless it is current, and report how the codes are used."""
    tokenizer = frozen(load_image_tokenizer(context.run), context.device)
    values, counts = codes_of(context, tokenizer).histogram()
    usage, spread = factor_usage(values, tokenizer.factors), perplexity(counts)
    each = " of each factor" if len(tokenizer.factors) > 1 else ""
    context.say(
        f"codes: {len(values):,} of {tokenizer.code_count:,} in use ({usage:.0%}{each}), "
        f"perplexity {spread:,.0f}"
    )
    if context.processes.is_main_process:
        context.run.log("codes", 0, code_usage=usage, perplexity=spread)
    warning = collapse_warning(usage, spread, tokenizer)
    if warning:
        context.say(f"WARNING: {warning}")


def codes_of(context: StageContext, tokenizer: ImageTokenizer) -> CodeCache:
    """The codes of all training images, encoded now if the cache is missing or stale."""
    experiment, device = context.experiment, context.device
    variants = encodings_of(experiment)
    differ_by = _differ_by(experiment) if variants > 1 else ""
    weights = context.run.weights_hash("image_tokenizer")
    key = CodeKey(weights, context.store.fingerprint, variants, len(context.store), differ_by)
    folder = context.run.cache / "codes"
    with context.processes.main_process_first():
        cache = CodeCache.open(folder, key)
        if cache is None:
            if (folder / "codes.json").is_file():
                context.say("codes: the cache is damaged or of other weights or data; renewing it")
            context.say(
                f"codes: encoding {counted(len(context.store), 'image')}, "
                f"{counted(variants, 'variant')} each"
            )
            chunks = encoded(context.store, experiment, tokenizer, variants, device)
            cache = CodeCache.write(folder, key, chunks)
    return cache


def encoded(
    store: ImageStore,
    experiment: Experiment,
    tokenizer: ImageTokenizer,
    variants: int,
    device: torch.device,
) -> Iterator[np.ndarray]:
    """Codes of all images of the first variant in order, then of the next.

    The first has the most likely codes of the images as they are; see `encodings_of`.
    """
    count = len(store)
    for variant in range(variants):
        temperature = experiment.transformer.posterior_temperature if variant else 0.0
        generator, encoded_at_once = torch.Generator(device), 0
        for start in range(0, count, IMAGES_AT_ONCE):
            rows = np.arange(start, min(start + IMAGES_AT_ONCE, count), dtype=np.int64)
            rng = step_rng(variant, start, 0) if variant else None
            images = load_images(store, rows, experiment.data, rng).to(device)
            encode: Callable[[Tensor], Tensor] = tokenizer.encode
            if rng is not None and temperature:
                generator.manual_seed(int(rng.integers(2**63)))
                encode = partial(
                    tokenizer.sample_codes, temperature=temperature, generator=generator
                )
            with torch.no_grad():
                encoded_at_once = encoded_at_once or rows_at_once(encode, images)
                for part in images.split(encoded_at_once):
                    yield encode(part).cpu().numpy()
