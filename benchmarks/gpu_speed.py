"""Speed and memory on a GPU: the training step, decoding, and a short training."""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import decode, ours
from benchmarks.options import Common, Session
from benchmarks.shape import Shape, training_flops
from benchmarks.timing import Contender
from dalle_mini_impl.cli import main as dalle
from dalle_mini_impl.experiment import Experiment
from dalle_mini_impl.planning.counting import count_stage
from dalle_mini_impl.planning.dry_run import dry_run
from dalle_mini_impl.precision import Precision, native_bf16
from dalle_mini_impl.runs.folder import RunFolder

BATCHES = (8, 16, 32, 64, 128, 256)
HOUR_SHARES = {"image_tokenizer": 0.05, "transformer": 0.78, "clip": 0.17}
TINY_OPTIONS = """
--data.image-size 32 --data.shapes.train-examples 40 --data.shapes.validation-examples 8
--data.shapes.held-out-examples 8 --data.workers 1 --image-tokenizer.training.batch-size 8
--image-tokenizer.training.steps 2 --transformer.depth 1 --transformer.width 32
--transformer.heads 2 --transformer.ffn-width 32 --transformer.training.batch-size 8
--transformer.training.steps 2 --clip.image-width 16 --clip.image-stages 2 --clip.text-depth 1
--clip.training.batch-size 8 --clip.training.steps 2 --sampling.candidates 2 --sampling.num-images 1
"""

Row = dict[str, str | float]


def session_on(device: str, compiled: bool, tiny: bool) -> Session:
    """Floors, precision and turns of this run."""
    repeats = 1 if tiny else 3
    common = Common(device=device, compile=compiled, quick=tiny, repeats=repeats, patience=15)
    return Session.begin(common, torch.get_num_threads())


def precision_on(device: torch.device) -> Precision:
    """bf16, where the device multiplies it."""
    return "bf16" if native_bf16(device) else "fp32"


def experiment_of(shape: Shape, batch: int, precision: Precision, compiled: bool) -> Experiment:
    """An experiment whose transformer has the shape."""
    training = {
        "batch_size": batch,
        "precision": precision,
        "compile": "on" if compiled else "off",
    }
    transformer = {
        "depth": shape.depth,
        "width": shape.width,
        "heads": shape.heads,
        "ffn_width": shape.ffn_width,
        "max_image_tokens": shape.image,
        "training": training,
    }
    return Experiment.model_validate(
        {
            "data": {"path": "shapes", "image_size": 8 * shape.grid},
            "captions": {"vocabulary_size": shape.text_vocabulary, "context": shape.text},
            "image_tokenizer": {"quantizer": {"codes": shape.codes}, "downsampling": 8},
            "transformer": transformer,
        }
    )


def training(shape: Shape, device: str, compiled: bool, tiny: bool) -> Iterator[Row]:
    """The project's own step by batch size: tokens/s, MFU, and memory beside the plan's."""
    session = session_on(device, compiled, tiny)
    precision = precision_on(session.device)
    on_gpu = session.device.type == "cuda"
    for batch in (2, 4) if tiny else BATCHES:
        experiment = experiment_of(shape, batch, precision, compiled)
        planned = count_stage(experiment, "transformer", shape.text_vocabulary, session.device)
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        trial = dry_run(experiment, "transformer", shape.text_vocabulary)
        examples = trial.batch(batch, session.device)
        try:
            step = ours.trainer(trial.objective, trial.training, examples, session.device)
            flops = training_flops(shape, ours.work_of(trial.objective.model), batch)
            contender = Contender("step", step, True, compiled=compiled)
            (timed,) = session.measure(f"step of {batch}", precision, [contender])
        except torch.OutOfMemoryError:
            yield {"batch": batch, "plan GiB": planned.peak / 2**30, "note": "out of memory"}
            return
        seconds = timed.seconds or float("nan")
        yield {
            "batch": batch,
            "parameters M": planned.parameters / 1e6,
            "ms": 1e3 * seconds,
            "tokens/s": batch * shape.tokens / seconds,
            "TFLOP/s": flops / seconds / 1e12,
            "MFU of the measured peak": flops / seconds / session.floors.peak(precision),
            "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else "",
            "plan GiB": planned.peak / 2**30,
            "note": step.compiled,
        }
        del step, trial, examples


def decoding(shape: Shape, device: str, compiled: bool, tiny: bool) -> Iterator[Row]:
    """All codes of 1 and of 64 guided images, this project first, then the installed peers."""
    session = session_on(device, compiled, tiny)
    precision = precision_on(session.device)
    samplers = decode.contenders(shape, session, precision)
    cases = [decode.Case(1), decode.Case(2 if tiny else 64, guidance=3.0)]
    for ours_first in (True, False):
        chosen = [sampler for sampler in samplers if sampler.ours is ours_first]
        for case in cases:
            for row in decode.time_case(str(case), case, shape, chosen, session, precision):
                seconds = row.seconds or float("nan")
                yield {
                    "case": row.case,
                    "": row.contender,
                    "precision": row.precision,
                    "ms": 1e3 * seconds,
                    "codes/s": row.amount / seconds,
                    "share of the roofline": row.fraction or float("nan"),
                    "note": row.note,
                }


def train_hour(run: Path, minutes: float, prompts: int, tiny: bool) -> Iterator[Row]:
    """Train configs/shapes-hour.yaml for `minutes` and judge its samples by the shapes suite."""
    command = ["train", "configs/shapes-hour.yaml", "--run", str(run)]
    for stage, share in HOUR_SHARES.items():
        command += [f"--{stage.replace('_', '-')}.training.minutes", f"{share * minutes:.3f}"]
    _dalle([*command, *(TINY_OPTIONS.split() if tiny else [])])
    last = {record["stage"]: record for record in RunFolder.open(run).metrics()}
    for stage, record in last.items():
        yield {"stage": stage, "steps": record["step"], "loss": record.get("loss", "")}
    candidates = ["1", "2"] if tiny else ["1", "16"]
    suite = ["evaluate", "--run", str(run), "--suite", "shapes", "--per-task", str(prompts)]
    _dalle([*suite, "--candidates", *candidates])
    yield {"stage": f"suite: {run}/evaluation/suite.json"}


def _dalle(arguments: list[str]) -> None:
    if status := dalle(arguments):
        raise RuntimeError(f"dalle {arguments[0]} ended with status {status}")
