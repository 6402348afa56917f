"""Measure this project beside its peers: `python -m benchmarks decode|train|…|gpu`.

Contenders are warmed up and then timed in turns within one process; medians, ratios and the share
of what the hardware allows are printed and, with --out, written as JSON.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import data, decode, detector, first_minute, gpu, peers, tables, tokenizer, train
from benchmarks.data import DataOptions
from benchmarks.decode import DecodeOptions
from benchmarks.detector import DetectorOptions
from benchmarks.first_minute import FirstMinuteOptions
from benchmarks.gpu import GpuOptions
from benchmarks.options import Common, Session, Table
from benchmarks.record import environment
from benchmarks.tokenizer_models import TokenizerOptions
from benchmarks.train import TrainOptions


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Decode:
    """Sample codes: one image, many, guided, and how the cost grows."""

    common: Common = field(default_factory=Common)
    decode: DecodeOptions = field(default_factory=DecodeOptions)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Train:
    """Take the transformer's training step."""

    common: Common = field(default_factory=Common)
    train: TrainOptions = field(default_factory=TrainOptions)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Tokenizer:
    """Take the image tokenizers' training step, and judge them after equal time."""

    common: Common = field(default_factory=Common)
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Data:
    """Prepare images, make batches, and time how long training waits for them."""

    common: Common = field(default_factory=Common)
    data: DataOptions = field(default_factory=DataOptions)


@dataclass(frozen=True)
class All:
    """Measure everything."""

    common: Annotated[Common, tyro.conf.OmitArgPrefixes] = field(default_factory=Common)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    data: DataOptions = field(default_factory=DataOptions)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Gpu:
    """Measure and check everything that is for a GPU in one call."""

    gpu: GpuOptions = field(default_factory=GpuOptions)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Detector:
    """Check how reliably the detector of scenes reads them."""

    detector: DetectorOptions = field(default_factory=DetectorOptions)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class FirstMinute:
    """Time `dalle sample` from its start to its end, part by part."""

    first_minute: FirstMinuteOptions = field(default_factory=FirstMinuteOptions)


@dataclass(frozen=True)
class Tables:
    """Turn a measurement's JSON into Markdown tables."""

    file: Annotated[Path, tyro.conf.Positional]
    """What --out wrote."""


Command = (
    Annotated[Decode, tyro.conf.subcommand("decode")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Tokenizer, tyro.conf.subcommand("tokenizer")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[All, tyro.conf.subcommand("all")]
    | Annotated[Gpu, tyro.conf.subcommand("gpu")]
    | Annotated[Detector, tyro.conf.subcommand("detector")]
    | Annotated[FirstMinute, tyro.conf.subcommand("first-minute")]
    | Annotated[Tables, tyro.conf.subcommand("tables")]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what was asked for."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = tyro.cli(Command, args=arguments, prog="python -m benchmarks")
    if isinstance(command, Tables):
        print(tables.markdown(json.loads(command.file.read_text(encoding="utf-8"))))
        return
    if isinstance(command, Detector):
        detector.run(command.detector)
        return
    if isinstance(command, FirstMinute):
        first_minute.run(command.first_minute)
        return
    if isinstance(command, Gpu):
        gpu.run(command.gpu)
        return
    common = command.common
    session = Session.begin(common, cores())
    conditions = environment(session.device, arguments)
    for missing in peers.absent():
        print(f"{missing.peer} is not installed and is left out: {missing.install}")
    record: dict[str, Any] = {
        "environment": conditions,
        "shape": dataclasses.asdict(common.shape),
        "absent": [dataclasses.asdict(missing) for missing in peers.absent()],
        "tables": [],
        "floors": session.floors.survey(common.shape, 32, session.able(("fp32", "bf16"))),
    }
    for found in measure(command, session):
        record["tables"] += [dataclasses.asdict(table) for table in found]
        if common.out is not None:  # after each part: all of them take long
            common.out.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(record, indent=1, ensure_ascii=False)
            common.out.write_text(text, encoding="utf-8")
    print()
    print(tables.text(record))
    if common.out is not None:
        print(f"\n{common.out}")


def measure(
    command: Decode | Train | Tokenizer | Data | All, session: Session
) -> Iterator[list[Table]]:
    """The tables of a command, part by part."""
    if isinstance(command, Decode | All):
        yield decode.run(command.decode, session)
    if isinstance(command, Train | All):
        yield train.run(command.train, session)
    if isinstance(command, Tokenizer | All):
        yield tokenizer.run(command.tokenizer, session)
    if isinstance(command, Data | All):
        yield data.run(command.data, session)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
