"""Settings that are valid alone and impossible together, each with a suggestion."""

from collections.abc import Iterator

from dalle_mini_impl.config import TrainingConfig
from dalle_mini_impl.data.codes import MAX_CODES
from dalle_mini_impl.models.config import ClipConfig, TransformerConfig
from dalle_mini_impl.models.tokenizers.autoencoder_configs import ConvolutionsConfig
from dalle_mini_impl.models.tokenizers.configs import ImageTokenizerConfig
from dalle_mini_impl.models.tokenizers.quantizer_configs import (
    CategoricalConfig,
    FiniteScalarConfig,
    QuantizerConfig,
)
from dalle_mini_impl.sampling.config import SamplingConfig


def check_image_tokenizer(config: ImageTokenizerConfig, image_size: int) -> Iterator[str]:
    """The image divides into codes that can be stored, and channels into normalization groups."""
    cell = config.downsampling
    if image_size % cell:
        fitting = max(1, round(image_size / cell)) * cell
        yield (
            f"data.image_size = {image_size}: not divisible by image_tokenizer.downsampling = "
            f"{cell}; use {fitting}, or another downsampling"
        )
    if config.code_count > MAX_CODES:
        name = "levels" if isinstance(config.quantizer, FiniteScalarConfig) else "codes"
        yield (
            f"image_tokenizer.quantizer.{name} = {getattr(config.quantizer, name)}: "
            f"{config.code_count:,} different codes, but at most {MAX_CODES:,} can be stored; "
            f"lower {name}"
        )
    own = config.autoencoder
    for width in own.widths(cell) if isinstance(own, ConvolutionsConfig) else []:
        groups = max(1, width // 32)
        if width % groups:
            yield (
                f"image_tokenizer.autoencoder.width = {own.width}: one of its levels has {width} "
                f"channels, which do not divide into {groups} groups; use a multiple of 64"
            )
            break


def check_transformer(config: TransformerConfig, image_size: int, cell: int) -> Iterator[str]:
    """All codes of an image have a position, and heads divide the width. cell: pixels per code."""
    grid = image_size // cell
    if image_size % cell == 0 and grid * grid > config.max_image_tokens:
        yield (
            f"transformer.max_image_tokens = {config.max_image_tokens}: fewer than the "
            f"{grid}×{grid} = {grid * grid} codes of an image; raise it, make data.image_size = "
            f"{image_size} smaller or image_tokenizer.downsampling = {cell} larger"
        )
    yield from _check_heads("transformer", "width", config.width, "heads", config.heads)
    channels, rest = divmod(config.width, config.heads)
    if rest == 0 and config.block == "modern" and channels % 4:
        yield (
            f"transformer.width = {config.width}: {config.heads} heads of {channels} channels, "
            "but rotary positions need a multiple of 4; use a width that is a multiple of "
            f"{4 * config.heads}"
        )


def check_encodings(config: TransformerConfig, quantizer: QuantizerConfig) -> Iterator[str]:
    """Codes are drawn from a posterior only where there is one, and for encodings after one."""
    field = f"transformer.posterior_temperature = {config.posterior_temperature:g}"
    if config.posterior_temperature and not isinstance(quantizer, CategoricalConfig):
        yield (
            f"{field}: the quantizer {quantizer.type} has no posterior to draw codes from; "
            "set it to 0, or use a categorical quantizer (image_tokenizer.preset = dvae)"
        )
    elif config.posterior_temperature and config.encodings == 1:
        yield (
            f"{field}: needs transformer.encodings = 2 or more, as the first encoding of an image "
            "always has the most likely codes"
        )


def check_clip(config: ClipConfig, image_size: int) -> Iterator[str]:
    """The image divides into patches at every stage, and widths into heads and groups."""
    width, heads = config.text_width, config.text_heads
    yield from _check_heads("clip", "text_width", width, "text_heads", heads)
    coarsest = config.patch * 2 ** (config.image_stages - 1)
    if image_size % coarsest:
        yield (
            f"clip.image_stages = {config.image_stages}: data.image_size = {image_size} is not "
            f"divisible by clip.patch·2^(stages - 1) = {coarsest}; use fewer stages or another "
            "patch"
        )
    if config.image_width % 8:
        yield (
            f"clip.image_width = {config.image_width}: not a multiple of 8, the number of its "
            "normalization groups"
        )


def check_sampling(config: SamplingConfig) -> Iterator[str]:
    """No more images are kept than are sampled."""
    if config.num_images > config.candidates:
        yield (
            f"sampling.num_images = {config.num_images}: more than sampling.candidates = "
            f"{config.candidates}; sample at least as many candidates as you keep images"
        )


def check_training(section: str, config: TrainingConfig) -> Iterator[str]:
    """A batch splits into equal micro-batches."""
    if config.batch_size % config.grad_accum_steps:
        yield (
            f"{section}.training.grad_accum_steps = {config.grad_accum_steps}: does not divide "
            f"batch_size = {config.batch_size}; use a divisor of it"
        )


def _check_heads(
    section: str, width_name: str, width: int, heads_name: str, heads: int
) -> Iterator[str]:
    if width % heads:
        divisors = [n for n in range(1, width + 1) if width % n == 0]
        nearest = min(divisors, key=lambda n: abs(n - heads))
        yield (
            f"{section}.{heads_name} = {heads}: does not divide {section}.{width_name} = {width}; "
            f"use {nearest} heads, or a width that is a multiple of {heads}"
        )
