"""How accelerate must be told where to run."""

import os

import torch

SINGLE_PROCESS_HINT = (
    "accelerate launch starts a single process on the CPU, whatever --num_processes says, unless "
    "it has MPI; `torchrun --nproc_per_node N -- SCRIPT …` starts N"
)


def cpu_only() -> bool:
    """Whether accelerate must be told to stay on the CPU: several processes and no GPU."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    requested = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return requested or (several and not torch.cuda.is_available())


def launched_alone_on_cpu() -> bool:
    """Whether a launcher for several processes started this one on the CPU (see the hint)."""
    return cpu_only() and "MASTER_PORT" in os.environ
