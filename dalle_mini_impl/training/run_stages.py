"""Runs the stages in order, each from what the ones before it left in the run folder.

captions → image_tokenizer → codes → transformer → clip. Each ends by printing the next command.
The transformer and CLIP do not need each other, so they may be trained side by side.
"""

from collections.abc import Callable

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.lock import writing
from dalle_mini_impl.runs.stages import SIDE_BY_SIDE, STAGES, WEIGHTS
from dalle_mini_impl.shipped.commands import command
from dalle_mini_impl.training.checkpoints import newest_checkpoint, read_state, written_at
from dalle_mini_impl.training.clip_stage import train_clip
from dalle_mini_impl.training.code_stage import encode_images
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.side_by_side import can_share_cores, trained_by_another_process
from dalle_mini_impl.training.tokenizer_stages import train_captions, train_image_tokenizer
from dalle_mini_impl.training.transformer_stage import train_transformer

FUNCTIONS: dict[str, Callable[[StageContext], None]] = {
    "captions": train_captions,
    "image_tokenizer": train_image_tokenizer,
    "codes": encode_images,
    "transformer": train_transformer,
    "clip": train_clip,
}
"""What each stage of the table does."""


def run_stages(
    run: RunFolder,
    stage: str | None = None,
    resume: bool = True,
    tensorboard: bool = False,
    show_results: Callable[[StageContext, bool], None] | None = None,
    side_by_side: bool = False,
) -> None:
    """Run `stage`, or every stage whose result the run does not have, in order.

    resume: continue a stage from its checkpoint; otherwise it starts again, and so does every stage
    where none is named. tensorboard: mirror the metrics. show_results: called at the end by the
    main process, with whether the run is complete. side_by_side: train CLIP in another process
    while this one trains the transformer, where two cores or more are there and no GPU.
    Raises ConfigError for a stage that does not exist.
    """
    if stage is not None and stage not in STAGES:
        raise ConfigError(f"--stage {stage}: no such stage; choose one of {', '.join(STAGES)}")
    context = StageContext(run, resume)
    if tensorboard and context.processes.is_main_process:
        run.mirror_to_tensorboard()
    trained: list[str] = []
    for name in [stage] if stage else STAGES:
        # Asked before each stage, as a new image tokenizer outdates what was made with the old.
        due = STAGES if stage or not resume else missing_stages(run)
        context.processes.wait_for_everyone()
        if name not in due or name in trained:
            continue
        trained.append(name)
        first, other = SIDE_BY_SIDE
        both_due = stage is None and name == first and other in due
        if side_by_side and both_due and can_share_cores(context):
            context.say(f"{name} and {other}: trained side by side, each on half of the cores")
            with trained_by_another_process(context, other, tensorboard):
                run_stage(name, context)
            trained.append(other)
        else:
            run_stage(name, context)
        context.say(f"{trained[-1]}: done. Next: {next_command(run)}")
    context.processes.wait_for_everyone()
    complete = not missing_stages(run)
    if complete:
        context.split("held_out")  # Prepared for captions of compositions that nothing trained on.
        context.say(f"{run.path} is complete: {next_command(run)}")
    if show_results is not None and context.processes.is_main_process:
        show_results(context, complete)


def run_stage(name: str, context: StageContext) -> None:
    """Run one stage. RunError if another command is writing it."""
    if context.processes.is_main_process:
        with writing(context.run.path, name):
            FUNCTIONS[name](context)
    else:
        FUNCTIONS[name](context)


def missing_stages(run: RunFolder) -> list[str]:
    """Stages whose results the run lacks; codes are needed as long as the transformer is."""
    missing = {stage for stage, weights in WEIGHTS.items() if not _has_result(run, stage, weights)}
    if not run.has_captions():
        missing.add("captions")
    if "transformer" in missing:
        missing.add("codes")
    return [stage for stage in STAGES if stage in missing]


def _has_result(run: RunFolder, stage: str, weights: str) -> bool:
    if not run.has_weights(weights) or not run.fits_image_tokenizer(weights):
        return False
    # An interrupted retraining leaves checkpoints that are newer than the weights.
    checkpoint = newest_checkpoint(run.path / "checkpoints" / stage)
    if checkpoint is None or written_at(checkpoint) <= run.weights_path(weights).stat().st_mtime:
        return True
    training = getattr(run.experiment, stage).training
    return read_state(checkpoint).progress(training) >= 1


def next_command(run: RunFolder) -> str:
    """The command that does what comes next: train what is missing, or sample."""
    missing = [stage for stage in missing_stages(run) if stage != "codes"]
    if missing:
        return f"{command('train')} --run {run.path} --stage {missing[0]}"
    return f'{command("sample")} "CAPTION" --run {run.path}'
