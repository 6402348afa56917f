"""What `dalle sample --continue-text` does: sample captions and print each with its ln p."""

from dalle_mini_impl.cli.sample_arguments import SampleArguments
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.pipeline import TextToImage

NUM_CAPTIONS = 8
"""Captions to sample unless --num-captions says otherwise."""


def sample_captions(model: TextToImage, arguments: SampleArguments) -> tuple[str, ...]:
    """Print one caption a line after its ln p in nats; returns the different ones."""
    settings = arguments.sampling_settings
    try:
        sampled = model.continue_text(
            arguments.continue_text or "",
            NUM_CAPTIONS if arguments.num_captions is None else arguments.num_captions,
            arguments.seed,
            settings.get("temperature", 1.0),
            settings.get("top_k", 0),
        )
    except ValueError as error:
        raise ConfigError(f"--continue-text: {error}") from error
    for caption in sampled:
        line = " ".join(caption.caption.split())  # A caption may hold line breaks.
        print(f"{caption.log_probability:8.2f}  {line}")
    return tuple(dict.fromkeys(caption.caption for caption in sampled))
