"""The options of `dalle sample`, and which of them go together."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro
from pydantic import Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from dalle_mini_impl.cli.output import OutputOptions
from dalle_mini_impl.cli.run_options import Device, optional, required
from dalle_mini_impl.config import Config, ConfigError, Seed, descriptions
from dalle_mini_impl.sampling.config import SamplingConfig

DESCRIPTIONS = descriptions(SamplingConfig)


def _option(name: str, of: FieldInfo) -> Any:
    """A field without its limits, None where the option is not given."""
    annotation: Any = of.annotation
    values = (
        f"{{{','.join(get_args(annotation))}}}"
        if get_args(annotation)
        else annotation.__name__.upper()
    )
    default = f"the run's sampling.{name}, {of.default} unless configured"
    option = Annotated[annotation | None, optional(default, values)]
    return option, Field(None, description=DESCRIPTIONS[name])


SamplingOptions = create_model(
    "SamplingOptions",
    __base__=Config,
    **{name: _option(name, of) for name, of in SamplingConfig.model_fields.items()},
)


@dataclass(frozen=True)
class SampleArguments(OutputOptions):
    """Sample images from captions; CLIP chooses the best candidates.

    Options that are not given take the values of the run's `sampling` section.
    """

    captions: Annotated[tuple[str, ...], tyro.conf.Positional, required("CAPTION")]
    """What the images should show; each caption gives a row of images."""
    negative: Annotated[str, optional("the null caption", "CAPTION")] = ""
    """Guidance moves away from this caption."""
    run: Annotated[
        Path | None, optional("the newest run under runs/, else pretrained:shapes", "RUN")
    ] = None
    """Run folder, zip or pretrained:NAME."""
    # Its help is given here: tyro would read that of a section from the source at every start.
    sampling: Annotated[
        Config, tyro.conf.arg(name="", help="How images are sampled.", constructor=SamplingOptions)
    ] = field(default_factory=SamplingOptions)
    """Fields of SamplingConfig; `check` applies their limits."""
    seed: Seed = 0
    """Seed of the first candidate; candidate i has seed + i."""
    avoid_copies: bool = False
    """Pass over candidates that are near copies of training images, as long as there are others."""
    out: Annotated[Path | None, optional("outputs/0001, 0002 and so on", "FOLDER")] = None
    """Folder for the images, sheet.png and samples.json; earlier samples in it are deleted."""
    complete: Annotated[Path | None, optional(metavar="IMAGE")] = None
    """Image whose upper rows are kept; the rest is sampled."""
    keep_rows: Annotated[
        Annotated[int, Field(ge=1, le=2**13)] | None, optional("half of them", "INT")
    ] = None
    """With --complete: rows of the code grid to keep."""
    inpaint: Annotated[Path | None, optional(metavar="IMAGE")] = None
    """Image of which the part under --mask is sampled again."""
    mask: Annotated[Path | None, optional(metavar="IMAGE")] = None
    """With --inpaint: black and white image of the same size, white where to sample again."""
    again: Annotated[Path | None, optional(metavar="IMAGE")] = None
    """Image sampled by this project, to be sampled again with everything that its file says."""
    continue_text: Annotated[str | None, optional(metavar="TEXT")] = None
    """Sample captions that begin so instead of images: "a small red", or "" for any caption."""
    num_captions: Annotated[Annotated[int, Field(ge=1, le=2**16)] | None, optional("8", "INT")] = (
        None
    )
    """With --continue-text: captions to sample, at --temperature and --top-k."""
    sample: bool = False
    """With --continue-text: also sample images from these captions, at the run's settings."""
    device: Device = None

    @property
    def sampling_settings(self) -> dict[str, Any]:
        """The fields of SamplingConfig that are given."""
        return self.sampling.model_dump(exclude_none=True)


def check_again(arguments: SampleArguments) -> None:
    """Refuse what would change the image that --again samples."""
    allowed = ("again", "run", "device", "out", "json", "quiet", "sampling", "captions")
    defaults = SampleArguments(())
    names = [field.name for field in fields(arguments) if field.name not in allowed]
    changed = {name for name in names if getattr(arguments, name) != getattr(defaults, name)}
    if arguments.captions:
        raise ConfigError("--again takes the caption from the file: give no other")
    if changed := changed | arguments.sampling_settings.keys():
        options = " and ".join(f"--{name.replace('_', '-')}" for name in sorted(changed))
        raise ConfigError(f"--again takes everything from the file: leave out {options}")


def check(arguments: SampleArguments) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    of_captions = arguments.continue_text is not None
    if arguments.again is not None:
        check_again(arguments)
        return
    if not arguments.captions and not of_captions:
        raise ConfigError('give at least one caption, such as: dalle sample "a red heart"')
    if arguments.captions and of_captions:
        raise ConfigError("--continue-text samples the captions itself: give it, or captions")
    if arguments.sample and not of_captions:
        raise ConfigError("--sample needs --continue-text: captions you give are sampled anyway")
    if of_captions and not arguments.sample:
        unused = arguments.sampling_settings.keys() - {"temperature", "top_k"}
        names = ("complete", "inpaint", "negative", "avoid_copies")
        unused |= {name for name in names if getattr(arguments, name)}
        if unused:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in sorted(unused))
            raise ConfigError(
                f"--continue-text samples captions only: {options} would do nothing; add --sample"
            )
    if arguments.num_captions is not None and not of_captions:
        raise ConfigError("--num-captions needs --continue-text; --num-images counts images")
    if arguments.complete and arguments.inpaint:
        raise ConfigError("--complete and --inpaint exclude each other: give one image")
    if (arguments.inpaint is None) != (arguments.mask is None):
        raise ConfigError("--inpaint IMAGE and --mask MASK go together: give both")
    if arguments.keep_rows is not None and arguments.complete is None:
        raise ConfigError("--keep-rows needs --complete IMAGE")
    try:
        SamplingConfig(**arguments.sampling_settings)
    except ValidationError as error:
        wrong = [
            f"--{str(detail['loc'][0]).replace('_', '-')} {detail['input']}: "
            f"{detail['msg'].removeprefix('Input ').removeprefix('Value error, ')}"
            for detail in error.errors()
        ]
        raise ConfigError("; ".join(wrong)) from error
