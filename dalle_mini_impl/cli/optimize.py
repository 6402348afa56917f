"""`dalle optimize`: paint towards prompts along a CLIP's gradient, or refine what was sampled."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from dalle_mini_impl.cli.sample import check_device
from dalle_mini_impl.config import Config, ConfigError
from dalle_mini_impl.vqgan_clip.code_prior import CodePriorConfig
from dalle_mini_impl.vqgan_clip.config import OptimizeConfig
from dalle_mini_impl.vqgan_clip.cutouts import CutoutsConfig


class FilmConfig(Config):
    """What is kept of the painting's progress."""

    every: int = Field(10, gt=0)
    """Steps between frames (and previews)."""
    format: Literal["webp", "gif", "mp4", "none"] = "webp"
    """Kind of film; mp4 needs ffmpeg."""
    per_second: float = Field(12.0, gt=0)
    """Frames a second."""
    zoom: float = Field(1.0, gt=0)
    """Factor by which the image grows at each frame; 1.02 flies into it."""
    pan: tuple[float, float] = (0.0, 0.0)
    """Motion of the camera to the right and down at each frame, in shares of the side."""


@dataclass(frozen=True)
class OptimizeArguments:
    """Paint by pushing a code map up CLIP's gradient (VQGAN+CLIP), with any image tokenizer.

    With --refine the transformer's best candidate is improved instead, gently enough to keep it.
    """

    text: Annotated[str | None, tyro.conf.Positional] = None
    """What to paint; more with --prompt."""
    prompt: tuple[str, ...] = ()
    """Further texts, as TEXT or TEXT:WEIGHT; a negative weight paints away from one."""
    image_prompt: tuple[str, ...] = ()
    """Images to come close to, as IMAGE or IMAGE:WEIGHT."""
    run: Path | None = None
    """Run folder; the newest run with a CLIP under runs/ if not given."""
    start: Literal["random", "image", "solid", "noise", "sample"] | None = None
    """Where to start; random codes if not given (image with --init, sample with --refine)."""
    init: Path | None = None
    """Image to start from."""
    color: str = "gray"
    """Color of --start solid, as a name or #rrggbb."""
    refine: bool = False
    """Start from the transformer's best candidate, with smaller steps and the code prior."""
    num_images: int = 1
    """Images to paint from different starts, best first."""
    seed: int = 0
    """Seed of the start and of the cutouts."""
    out: Path = Path("outputs/optimize")
    """Folder for image.png, sheet.png, the film, its frames, loss.png and result.json."""
    settings: Annotated[OptimizeConfig, tyro.conf.arg(name="")] = field(
        default_factory=OptimizeConfig
    )
    """Steps, rates and cutouts."""
    nearness: float = 0.1
    """Weight of the distance to the nearest codes."""
    prior: float = 0.2
    """Weight of the codes' unlikeliness to the transformer, in nats per code; 0 does without."""
    prior_text: bool = False
    """Ask the transformer with the text, not for images in general."""
    proposals: CodePriorConfig = field(default_factory=CodePriorConfig)
    """How the transformer proposes likelier codes close by, where --prior is not 0."""
    film: FilmConfig = field(default_factory=FilmConfig)
    """Frames, film and motion."""
    clip: str | None = None
    """Another CLIP: transformers:NAME or open_clip:ARCHITECTURE:WEIGHTS (names or local paths)."""
    device: str | None = None
    """cpu or cuda; the GPU if there is one."""


REFINING = OptimizeArguments(
    refine=True,
    prior=1.0,
    prior_text=True,
    proposals=CodePriorConfig(settling=1.0),
    settings=OptimizeConfig(
        steps=100,
        learning_rate=0.03,
        propose_after=0.0,
        cutouts=CutoutsConfig(whole=0.75, smallest=0.8),
    ),
)
"""Defaults with --refine: the candidate is mostly right already."""


def main(argv: Sequence[str] | None = None) -> None:
    """Paint as the arguments say."""
    given = list(sys.argv[1:] if argv is None else argv)
    default = REFINING if "--refine" in given else OptimizeArguments()
    arguments = tyro.cli(OptimizeArguments, args=given, prog="dalle optimize", default=default)
    check(arguments)
    check_device(arguments.device)

    from dalle_mini_impl.cli.optimization import paint

    paint(arguments)


def check(arguments: OptimizeArguments) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    if arguments.text is None and not (arguments.prompt or arguments.image_prompt):
        raise ConfigError('say what to paint: dalle optimize "a watercolor of a red heart"')
    if arguments.num_images < 1:
        raise ConfigError(f"--num-images {arguments.num_images}: paint one image or more")
    if arguments.start == "image" and arguments.init is None:
        raise ConfigError("--start image needs --init IMAGE")
    if arguments.init is not None and arguments.start not in (None, "image"):
        raise ConfigError(f"--init and --start {arguments.start} exclude each other: give one")
    if arguments.refine and (arguments.init or arguments.start not in (None, "sample")):
        raise ConfigError("--refine starts from the transformer's candidate: no --init or --start")
    if arguments.prior < 0 or arguments.nearness < 0:
        raise ConfigError("--prior and --nearness are weights of costs: give 0 or more")
    if arguments.prior and arguments.prior_text and arguments.text is None:
        raise ConfigError("--prior-text asks the transformer with the text: give it first")
    if start_of(arguments) == "sample" and arguments.text is None:
        raise ConfigError("the transformer samples from a text: give it first, before --prompt")


def start_of(arguments: OptimizeArguments) -> str:
    """Where to start, said or implied."""
    if arguments.refine:
        return "sample"
    return arguments.start or ("image" if arguments.init else "random")
