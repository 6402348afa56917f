"""What `dalle sample --continue-text` does: captions that begin as asked, each with its ln p."""

from dalle_mini_impl.cli.sample import SampleArguments, check_device
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.pipeline import TextToImage
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.newest import newest


def continue_text(arguments: SampleArguments) -> tuple[str, ...]:
    """Print the captions, one a line after its ln p in nats; returns the different ones."""
    run = RunFolder.open(arguments.run) if arguments.run else newest(weights="dalle")
    check_device(arguments.device)
    model = TextToImage.from_pretrained(run, arguments.device)
    temperature = 1.0 if arguments.temperature is None else arguments.temperature
    prompt = arguments.continue_text or ""
    try:
        written = model.continue_text(
            prompt, arguments.num, arguments.seed, temperature, arguments.top_k or 0
        )
    except ValueError as error:
        raise ConfigError(f"--continue-text: {error}") from error
    for caption in written:
        line = " ".join(caption.caption.split())  # a young model writes line breaks as well
        print(f"{caption.log_probability:8.2f}  {line}")
    return tuple(dict.fromkeys(caption.caption for caption in written))
