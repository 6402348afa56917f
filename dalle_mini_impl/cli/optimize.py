"""`dalle optimize`: optimize images for prompts along a CLIP's gradient, or refine a sample."""

import sys
from collections.abc import Sequence

from dalle_mini_impl.cli.optimize_arguments import REFINING, OptimizeArguments, check
from dalle_mini_impl.cli.output import output
from dalle_mini_impl.cli.output_folder import check_folder
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import check_device


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and optimize."""
    given = list(sys.argv[1:] if argv is None else argv)
    default = REFINING if "--refine" in given else OptimizeArguments()
    arguments = parse_arguments(OptimizeArguments, given, "dalle optimize", default)
    check(arguments)
    check_folder("--out", arguments.out)
    check_device(arguments.device)
    from dalle_mini_impl.cli.optimize_images import optimize_images

    with output(arguments) as result:
        optimize_images(arguments, result)
