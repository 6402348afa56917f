"""How accelerate must be told where to run, and what all processes agree on."""

import os
from typing import NamedTuple

import torch
import torch.distributed as dist

SINGLE_PROCESS_HINT = (
    "accelerate launch starts a single process on the CPU, whatever --num_processes says, unless "
    "it has MPI; `torchrun --nproc_per_node N -- SCRIPT …` starts N"
)


def cpu_only() -> bool:
    """Whether accelerate must be told to stay on the CPU.

    With several processes and no GPU, and on Apple's GPU, which accelerate would choose by itself
    but which nobody has tested: ACCELERATE_TORCH_DEVICE=mps asks for it.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    requested = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    cuda = torch.cuda.is_available()
    return requested or (not cuda and (several or torch.backends.mps.is_available()))


def launched_alone_on_cpu() -> bool:
    """Whether a launcher for several processes started this one on the CPU (see the hint)."""
    return cpu_only() and "MASTER_PORT" in os.environ


class Agreed(NamedTuple):
    """What all processes go by."""

    stop: int
    """The signal that asked one of them to stop, or 0."""
    elapsed: float
    """Seconds spent on the stage, in all sessions."""
    failed: bool
    """Whether a loss or gradient of one of them is not finite."""


def highest(own: Agreed, processes: int, device: torch.device) -> Agreed:
    """The stop signal, the clock and a failure, each the highest of any process."""
    if processes == 1:
        return own
    facts = torch.tensor(own, dtype=torch.float64, device=device)
    dist.all_reduce(facts, dist.ReduceOp.MAX)
    return Agreed(int(facts[0]), float(facts[1]), bool(facts[2]))
