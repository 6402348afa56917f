"""The options of `dalle optimize`, and which of them go together."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from dalle_mini_impl.cli.output import OutputOptions
from dalle_mini_impl.cli.run_options import ClipRun, Device, OtherClip, optional
from dalle_mini_impl.config import Config, ConfigError, Seed
from dalle_mini_impl.vqgan_clip.config import CodePriorConfig, CutoutsConfig, OptimizeConfig

Shift = Annotated[float, Field(ge=-1, le=1)]
Weight = Annotated[float, Field(ge=0, le=10**6)]


class FilmConfig(Config):
    """Frames of the optimization, and the film made of them."""

    every: int = Field(10, gt=0, le=10**7)
    """Steps between frames (and previews)."""
    format: Literal["webp", "gif", "mp4", "none"] = "webp"
    """Kind of film; mp4 needs ffmpeg."""
    per_second: float = Field(12.0, ge=0.1, le=1000)
    """Frames a second."""
    zoom: float = Field(1.0, ge=0.1, le=10)
    """Factor by which the image is magnified at each frame; 1.02 zooms in slowly."""
    pan: tuple[Shift, Shift] = (0.0, 0.0)
    """Motion of the camera to the right and down at each frame, as shares of the side."""


@dataclass(frozen=True)
class OptimizeArguments(OutputOptions):
    """Optimize an image's latents along CLIP's gradient (VQGAN+CLIP), with any image tokenizer.

    With --refine the start is the transformer's best candidate, changed in small steps.
    """

    text: Annotated[str | None, tyro.conf.Positional, optional(metavar="TEXT")] = None
    """What the image should show; further texts with --prompt."""
    prompt: Annotated[tuple[str, ...], optional()] = ()
    """Further texts, as TEXT or TEXT:WEIGHT; a negative weight moves the image away from one."""
    image_prompt: Annotated[tuple[str, ...], optional()] = ()
    """Images that the result should resemble, as IMAGE or IMAGE:WEIGHT."""
    run: ClipRun = None
    start: Annotated[
        Literal["random", "image", "solid", "noise", "sample"] | None,
        optional(
            "random; image with --init, sample with --refine",
            "{random,image,solid,noise,sample}",
        ),
    ] = None
    """Where to start."""
    init: Annotated[Path | None, optional(metavar="IMAGE")] = None
    """Image to start from."""
    color: str = "gray"
    """Color of --start solid, as a name or #rrggbb."""
    refine: bool = False
    """Start from the transformer's best candidate, with smaller steps and the code prior."""
    num_images: Annotated[int, Field(ge=1, le=2**12)] = 1
    """Images to optimize from different starts, best first."""
    seed: Seed = 0
    """Seed of the start and of the cutouts."""
    out: Path = Path("outputs/optimize")
    """Folder for image.png, sheet.png, the film, its frames, loss.png and result.json."""
    settings: Annotated[OptimizeConfig, tyro.conf.arg(name="")] = field(
        default_factory=OptimizeConfig
    )
    """Steps, rates and cutouts."""
    nearness: Weight = 0.1
    """Weight of the distance of the latents to their nearest codes."""
    prior: Weight = 0.2
    """Weight of -log p of the codes by the transformer, per code; 0 uses no transformer."""
    prior_text: bool = False
    """Give the transformer the text as its caption; without it, no caption."""
    proposals: CodePriorConfig = field(default_factory=CodePriorConfig)
    """How the transformer proposes likelier codes, where --prior is not 0."""
    film: FilmConfig = field(default_factory=FilmConfig)
    """Frames, film and motion."""
    clip: OtherClip = None
    device: Device = None


REFINING = OptimizeArguments(
    refine=True,
    prior=1.0,
    prior_text=True,
    proposals=CodePriorConfig(early_factor=1.0),
    settings=OptimizeConfig(
        steps=100,
        learning_rate=0.03,
        propose_after=0.0,
        cutouts=CutoutsConfig(whole=0.75, smallest=0.8),
    ),
)
"""Defaults with --refine: small changes, as the candidate is mostly right already."""


def check(arguments: OptimizeArguments) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    if arguments.text is None and not (arguments.prompt or arguments.image_prompt):
        raise ConfigError('give a text, such as: dalle optimize "a watercolor of a red heart"')
    if arguments.film.format == "mp4" and shutil.which("ffmpeg") is None:
        raise ConfigError("--film.format mp4: ffmpeg is not installed; choose webp or gif")
    if arguments.start == "image" and arguments.init is None:
        raise ConfigError("--start image needs --init IMAGE")
    if arguments.init is not None and arguments.start not in (None, "image"):
        raise ConfigError(f"--init and --start {arguments.start} exclude each other: give one")
    if arguments.refine and (arguments.init or arguments.start not in (None, "sample")):
        raise ConfigError("--refine starts from a sample: leave out --init and --start")
    if arguments.prior and arguments.prior_text and arguments.text is None:
        raise ConfigError("--prior-text gives the transformer the text: give one before --prompt")
    if start_of(arguments) == "sample" and arguments.text is None:
        raise ConfigError("the transformer samples from a text: give one before --prompt")


def start_of(arguments: OptimizeArguments) -> str:
    """Where to start, as given or as other options imply."""
    if arguments.refine:
        return "sample"
    return arguments.start or ("image" if arguments.init else "random")
