"""The process that trains a stage beside another: `python -m THIS RUN STAGE RESUME TENSORBOARD`.

training/side_by_side.py starts it, and stops it by closing its standard input.
"""

import os
import signal
import sys
import threading

from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.runs.folder import RunFolder
from dalle_mini_impl.runs.os_errors import explain_os_error
from dalle_mini_impl.runs.weights import RunError
from dalle_mini_impl.training.context import StageContext
from dalle_mini_impl.training.nonfinite import NonFiniteLoss
from dalle_mini_impl.training.run_stages import run_stage


def main(path: str, stage: str, resume: str, tensorboard: str) -> int:
    """Train the stage; returns the exit status (2 for errors that the user can fix)."""
    _stop_with_standard_input()
    try:
        run = RunFolder.open(path)
        if tensorboard == "True":
            run.mirror_to_tensorboard()
        run_stage(stage, StageContext(run, resume == "True"))
    except (ConfigError, RunError, NonFiniteLoss) as error:
        print(f"{stage}: {error}", flush=True)
        return 2
    except OSError as error:
        if (message := explain_os_error(error)) is None:
            raise
        print(f"{stage}: {message}", flush=True)
        return 2
    return 0


def _stop_with_standard_input() -> None:
    """Ask this process to save and stop once its standard input ends: the other one is gone."""

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stop", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
