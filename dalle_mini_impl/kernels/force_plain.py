"""The switch that takes the plain function of every kernel."""

import os


def force_plain() -> bool:
    """Whether the environment says `DALLE_KERNELS=plain`."""
    return os.environ.get("DALLE_KERNELS", "") == "plain"
