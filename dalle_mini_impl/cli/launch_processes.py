"""Start the processes that `accelerate launch --cpu` is asked for but does not start.

On CPUs accelerate's launcher starts a single process unless it has MPI, whatever --num_processes
says (accelerate issue 2741). torch's own launcher, which accelerate understands, starts them all.
"""

import os
import sys
from collections.abc import Mapping, Sequence


def missing_processes(environment: Mapping[str, str], launcher: Sequence[str]) -> int:
    """How many processes a CPU launch asked for and did not start; 0 where none are missing.

    launcher: the command line of the process that started this one.
    """
    on_cpu = environment.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if not on_cpu or "WORLD_SIZE" in environment or "MASTER_PORT" not in environment:
        return 0
    words = [word for part in launcher for word in part.split("=", 1)]
    for option in ("--num_processes", "--num-processes", "-n"):
        if option in words[:-1]:
            count = words[words.index(option) + 1]
            return int(count) if count.isdecimal() and int(count) > 1 else 0
    return 0


def launch_missing_processes() -> None:
    """Run what accelerate's launcher left out, where it did, and leave with the result."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true":
        return
    import psutil

    parent = psutil.Process().parent()
    count = missing_processes(os.environ, parent.cmdline() if parent else [])
    if count == 0:
        return
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="train",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*sys.argv)
    except ChildFailedError as error:
        first = min(error.failures.values(), key=lambda failure: failure.timestamp)
        raise SystemExit(first.exitcode) from None
    raise SystemExit(0)
