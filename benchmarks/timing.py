"""Contenders timed side by side: warmed up first, then in turns, so that drift hits all alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

SHORTEST = 0.2
"""Seconds that one timed turn lasts at the least: quicker work is repeated within the turn."""

LONG = 5.0
"""Seconds from which one call is enough to warm up."""


@dataclass(frozen=True)
class Contender:
    """Something that does one unit of work when called."""

    name: str
    run: Callable[[], object]
    ours: bool = False
    parameters: int | None = None
    floor: Callable[[], float] | None = None
    """Seconds that the same work takes at the least on this hardware; asked for afterwards."""
    note: str = ""
    compiled: bool = False
    """Whether its first call may compile, and so tells nothing of how long a call takes."""


@dataclass(frozen=True)
class Row:
    """What was measured of one contender in one case."""

    case: str
    contender: str
    ours: bool
    precision: str
    seconds: float | None
    """Median of all turns; none where the contender failed."""
    turns: list[float] = field(default_factory=list)
    """Seconds of every turn."""
    amount: float = 1.0
    """Units of work done in those seconds."""
    unit: str = ""
    parameters: int | None = None
    floor: float | None = None
    fraction: float | None = None
    """Share of the floor that was reached: floor / seconds."""
    ratios: dict[str, float] = field(default_factory=dict)
    """How many times as fast as each peer this is; this project's rows only."""
    note: str = ""


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    case: str,
    precision: str,
    contenders: Sequence[Contender],
    repeats: int,
    device: torch.device,
    amount: float = 1.0,
    unit: str = "",
    patience: float = 60.0,
) -> list[Row]:
    """Time all contenders in turns: A B C A B C …, after calls of each to warm up.

    amount: units of work in one call. Whoever has been timed for `patience` seconds takes no
    further turn, so that the slowest do not decide how long a measurement takes. A peer that
    raises is reported as failed, with its message; an error of this project's own is raised.
    """
    able, failed = [], []
    for contender in contenders:
        try:
            able.append((contender, _calls_per_turn(contender, device)))
        except Exception as error:
            if contender.ours:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            failed.append(
                Row(case, contender.name, False, precision, None, note=f"failed: {reason}")
            )
    turns: dict[str, list[float]] = {contender.name: [] for contender, _ in able}
    for _ in range(repeats):
        for contender, calls in able:
            taken = turns[contender.name]
            if not taken or sum(taken) * calls < patience:
                taken.append(_turn(contender, calls, device))
    medians = {name: statistics.median(times) for name, times in turns.items()}
    peers = [contender.name for contender, _ in able if not contender.ours]
    rows = []
    for contender, _ in able:
        seconds = medians[contender.name]
        floor = contender.floor() if contender.floor else None
        rows.append(
            Row(
                case,
                contender.name,
                contender.ours,
                precision,
                seconds,
                turns[contender.name],
                amount,
                unit,
                contender.parameters,
                floor,
                floor / seconds if floor else None,
                {peer: medians[peer] / seconds for peer in peers} if contender.ours else {},
                contender.note,
            )
        )
    return rows + failed


def _calls_per_turn(contender: Contender, device: torch.device) -> int:
    once = _turn(contender, 1, device)
    if once < LONG or contender.compiled:
        once = _turn(contender, 1, device)
    return max(1, round(SHORTEST / max(once, 1e-6)))


def _turn(contender: Contender, calls: int, device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    for _ in range(calls):
        contender.run()
    synchronize(device)
    return (time.perf_counter() - started) / calls
