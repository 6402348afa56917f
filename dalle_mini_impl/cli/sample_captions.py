"""What `dalle sample --continue-text` does: sample captions and print each with its ln p."""

from collections.abc import Sequence

from dalle_mini_impl.cli.sample_arguments import SampleArguments
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.messages import printable
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.sampling.caption_sampler import SampledCaption

NUM_CAPTIONS = 8
"""Captions to sample unless --num-captions says otherwise."""


def sample_captions(model: TextToImage, arguments: SampleArguments) -> list[SampledCaption]:
    """Captions that begin as asked, with their log-probabilities."""
    settings = arguments.sampling_settings
    try:
        return model.continue_text(
            arguments.continue_text or "",
            NUM_CAPTIONS if arguments.num_captions is None else arguments.num_captions,
            arguments.seed,
            settings.get("temperature", 1.0),
            settings.get("top_k", 0),
        )
    except ValueError as error:
        raise ConfigError(f"--continue-text: {error}") from error


def show_captions(sampled: Sequence[SampledCaption]) -> None:
    """Print one caption a line after its ln p in nats."""
    for caption in sampled:
        line = " ".join(caption.caption.split())  # A caption may hold line breaks.
        print(f"{caption.log_probability:8.2f}  {printable(line)}")
