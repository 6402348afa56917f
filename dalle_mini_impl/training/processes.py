"""How accelerate must be told where to run."""

import os

import torch

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
