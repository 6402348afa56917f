"""train CONFIG [--run DIR] [--stage STAGE] [--no-resume] [--no-side-by-side] [--tensorboard]
      [--SECTION.FIELD VALUE]

Trains what the run does not have yet: captions, image_tokenizer, codes, transformer, clip.

  CONFIG           an experiment's YAML, or the name of a shipped one, such as shapes; may be left
                   out with --run
  --run DIR        the run folder; runs/NAME for NAME.yaml unless given
  --stage STAGE    this stage only
  --no-resume      train the stage from the beginning, not from its checkpoint; without --stage,
                   all stages, also finished ones
  --no-side-by-side
                   without a GPU, train CLIP after the transformer, not beside it on half of the
                   cores each
  --tensorboard    also log for TensorBoard
  --json           print the results as one JSON document, and progress on standard error
  --quiet          print only the path of the report, and errors

`train CONFIG --help` lists every field of that experiment with its value: each is an option, as
in --transformer.depth 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dalle_mini_impl.cli.experiment_options import parse
from dalle_mini_impl.cli.launch_processes import launch_missing_processes
from dalle_mini_impl.cli.output import OutputOptions, Result, output
from dalle_mini_impl.cli.output_folder import check_folder
from dalle_mini_impl.cli.run_options import optional
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.runs.stages import STAGES, StageName
from dalle_mini_impl.shipped.folders import config_names

if TYPE_CHECKING:
    from dalle_mini_impl.training.context import StageContext


@dataclass(frozen=True)
class Command(OutputOptions):
    """Train what the run does not have yet; every field of the experiment is an option."""

    config: Annotated[
        str | None, tyro.conf.Positional, optional("the config.yaml of --run", "CONFIG")
    ]
    """The experiment's YAML or a shipped name; may be left out if --run names a run to continue."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    """Fields of the experiment."""
    run: Annotated[str | None, optional("runs/NAME for NAME.yaml", "DIR")] = None
    """The run folder."""
    stage: Annotated[
        StageName | None,
        optional("all that the run does not have yet", f"{{{','.join(STAGES)}}}"),
    ] = None
    """This stage only."""
    resume: bool = True
    """Continue from the checkpoint, or restart the stage; without --stage, all stages."""
    side_by_side: bool = True
    """Without a GPU, train CLIP beside the transformer, each on half of the cores."""
    tensorboard: bool = False
    """Also log for TensorBoard, under the run's tensorboard/."""


def main(argv: Sequence[str]) -> None:
    """Parse the options, create or open the run and train its stages."""
    launch_missing_processes()
    config, run_path = _config_and_run(argv)
    asks_for_help = bool({"-h", "--help"} & set(argv))
    if run_path == "":
        raise ConfigError("--run: the path is empty; name a folder, such as runs/mine")
    if config is None and run_path is None:
        if asks_for_help:
            print(__doc__)
            return
        shipped = ", ".join(config_names())
        raise ConfigError(
            f"CONFIG is missing: name a shipped configuration ({shipped}) or a YAML file, or with "
            "--run a run to continue"
        )
    if config is None and not asks_for_help:
        from dalle_mini_impl.runs.folder import RunFolder

        RunFolder.open(run_path or "")  # Raises an error that names what is wrong with the folder.
    source = config or str(Path(run_path or "") / "config.yaml")
    command = parse(
        lambda experiment: Command(config, experiment, run_path), "dalle train", argv, source
    )
    from dalle_mini_impl.cli.changed_settings import create_or_continue

    path = Path(command.run or f"runs/{Path(config or '').stem}")
    check_folder("--run", path)
    run = create_or_continue(
        path,
        command.experiment,
        restart=None if command.resume else (command.stage or "all"),
    )
    with output(command) as result:
        # Importing what trains takes seconds.
        print(f"training in {run.path}", flush=True)
        from dalle_mini_impl.planning.disk import check_room, count_data
        from dalle_mini_impl.training.code_stage import encodings_of
        from dalle_mini_impl.training.run_stages import run_stages

        codes = run.experiment.image_tokenizer.code_count
        cost = count_data(run.experiment, codes, encodings_of(run.experiment))
        check_room(run.path / "cache", cost, command.stage in (None, "codes", "transformer"))
        show = partial(show_results, result)
        mirror, side_by_side = command.tensorboard, command.side_by_side
        run_stages(run, command.stage, command.resume, mirror, show, side_by_side)


def show_results(result: Result, context: "StageContext", complete: bool) -> None:
    """Write the run's report; once the run is complete, with a gallery of samples."""
    from dalle_mini_impl.evaluation.report.codebook import save_codebook
    from dalle_mini_impl.evaluation.report.gallery import sample_gallery
    from dalle_mini_impl.evaluation.report.run_report import final, write_report
    from dalle_mini_impl.pipeline import TextToImage

    run = context.run
    if complete:
        model = TextToImage.from_pretrained(run, context.device)
        save_codebook(run, model)
        sample_gallery(run, model)
    report = str(write_report(run))
    records = run.metrics()
    stages = {
        stage: final([r for r in records if r["stage"] == stage])
        for stage in dict.fromkeys(record["stage"] for record in records)
    }
    values = {"run": str(run.path), "complete": complete, "stages": stages, "report": report}
    result(values, lambda: print(f"report: {report}"))


def _config_and_run(argv: Sequence[str]) -> tuple[str | None, str | None]:
    """CONFIG and --run, which determine what the other options are."""
    config = argv[0] if argv and not argv[0].startswith("-") else None
    run = None
    for index, argument in enumerate(argv):
        if argument == "--run" and index + 1 < len(argv):
            run = argv[index + 1]
        elif argument.startswith("--run="):
            run = argument.removeprefix("--run=")
        elif config is None and argument.endswith((".yaml", ".yml")):
            config = argument
    return config, run
