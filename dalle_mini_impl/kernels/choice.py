"""Whether fast kernels may run at all."""

import os


def fast_allowed() -> bool:
    """False where the environment says `DALLE_KERNELS=plain`; read when code is compiled."""
    return os.environ.get("DALLE_KERNELS", "") != "plain"
