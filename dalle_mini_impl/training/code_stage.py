"""The stage that encodes the training images once, into a cache of codes."""

from collections.abc import Iterator

import numpy as np
import torch

from dalle_mini_impl.data.augment import ImageStore, load_images
from dalle_mini_impl.data.batches import step_rng
from dalle_mini_impl.data.codes import CodeCache, CodeKey, factor_usage, perplexity
from dalle_mini_impl.data.config import DataConfig
from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.kernels.chunks import rows_at_once
from dalle_mini_impl.models.tokenizers.image_tokenizer import ImageTokenizer
from dalle_mini_impl.runs.loading import frozen, load_image_tokenizer
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.objectives.reconstruction import collapse_warning

AUGMENTED_VARIANTS = 4
"""Encodings of each image where crops or flips are asked for, the first without either."""
IMAGES_AT_ONCE = 128
"""Images that are loaded at a time; as many of them are encoded at once as memory allows."""


def variants_of(data: DataConfig) -> int:
    """Encodings of each image in the cache."""
    augmented = data.random_resized_crop is not None or data.horizontal_flip
    return AUGMENTED_VARIANTS if augmented else 1


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
    variants = variants_of(context.experiment.data)
    weights = context.run.weights_hash("image_tokenizer")
    key = CodeKey(weights, context.store.fingerprint, variants, len(context.store))
    folder = context.run.cache / "codes"
    with context.processes.main_process_first():
        cache = CodeCache.open(folder, key)
        if cache is None:
            if (folder / "codes.json").is_file():
                context.say("codes: the cache is of another image tokenizer or data; renewing it")
            context.say(
                f"codes: encoding {counted(len(context.store), 'image')}, "
                f"{counted(variants, 'variant')} each"
            )
            data, device = context.experiment.data, context.device
            chunks = encoded(context.store, data, tokenizer, variants, device)
            cache = CodeCache.write(folder, key, chunks)
    return cache


def encoded(
    store: ImageStore,
    data: DataConfig,
    tokenizer: ImageTokenizer,
    variants: int,
    device: torch.device,
) -> Iterator[np.ndarray]:
    """Codes of all images of the first variant in order, then of the next."""
    count, encoded_at_once = len(store), 0
    for variant in range(variants):
        for start in range(0, count, IMAGES_AT_ONCE):
            rows = np.arange(start, min(start + IMAGES_AT_ONCE, count), dtype=np.int64)
            rng = step_rng(variant, start, 0) if variant else None
            images = load_images(store, rows, data, rng).to(device)
            with torch.no_grad():
                encoded_at_once = encoded_at_once or rows_at_once(tokenizer.encode, images)
                for part in images.split(encoded_at_once):
                    yield tokenizer.encode(part).cpu().numpy()
