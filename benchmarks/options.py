"""What can be asked of a measurement, and what every part of one needs."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch._dynamo

from benchmarks.floors import Floors
from benchmarks.shape import Shape
from benchmarks.timing import Contender, Row, measure
from dalle_mini_impl.precision import Precision, native_bf16


@dataclass(frozen=True)
class Common:
    """What every measurement has."""

    threads: int = 0
    """Threads to compute with; 0 uses all cores."""
    repeats: int = 5
    """Timed turns of each contender, of which the median counts."""
    patience: float = 60.0
    """Seconds of a contender's turns in one case after which it takes no further one."""
    out: Path | None = None
    """JSON file to write."""
    device: str = "cpu"
    """cpu or cuda."""
    only: str = ""
    """Regular expression: contenders whose name does not match are left out."""
    compile: bool = True
    """Measure compiled variants too; each takes its time to compile first."""
    quick: bool = False
    """Measure the floors roughly, to try things out."""
    shape: Shape = field(default_factory=Shape)
    """The transformer's shape."""


@dataclass(frozen=True)
class Table:
    """Rows that belong together."""

    name: str
    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Session:
    """The options with what was made of them once."""

    common: Common
    device: torch.device
    floors: Floors

    @classmethod
    def begin(cls, common: Common, threads: int) -> "Session":
        """Set the number of threads and find the device."""
        torch.set_num_threads(common.threads or threads)
        if common.compile:
            # Models of one class share compiled code; beyond the limit they would run eager.
            torch._dynamo.config.recompile_limit = 128
        device = torch.device(common.device)
        return cls(common, device, Floors(device, common.quick))

    def measure(
        self,
        case: str,
        precision: str,
        contenders: Iterable[Contender],
        amount: float = 1.0,
        unit: str = "",
    ) -> list[Row]:
        """Time those whose names were asked for, and tell how it went."""
        chosen = [c for c in contenders if self.wanted(c.name)]
        common = self.common
        rows = measure(
            case, precision, chosen, common.repeats, self.device, amount, unit, common.patience
        )
        say(rows)
        return rows

    def able(self, precisions: Iterable[Precision]) -> tuple[Precision, ...]:
        """Those that the hardware multiplies natively: emulation is hundreds of times slower."""
        return tuple(p for p in precisions if p == "fp32" or native_bf16(self.device))

    def wanted(self, name: str) -> bool:
        """Whether a contender of that name is to be measured."""
        return re.search(self.common.only, name) is not None


def say(rows: Sequence[Row]) -> None:
    """Tell how far the measurement is."""
    for row in rows:
        taken = row.note if row.seconds is None else f"{row.seconds:.4g} s"
        print(f"  {row.case}, {row.precision}, {row.contender}: {taken}", flush=True)
