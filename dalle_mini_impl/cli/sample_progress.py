"""How far `dalle sample` is, on standard error: one line on a terminal, else some plain lines."""

import sys
import time
from contextlib import AbstractContextManager
from typing import Any

EVERY = 5.0
"""Seconds between plain lines on the way."""
CLEAR_LINE = "\r\x1b[K"


class SampleProgress(AbstractContextManager["SampleProgress"]):
    """Says what is being done, from the first moment on."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.doing = ""
        self.told = time.monotonic()

    def begin(self, what: str) -> None:
        """What is done from now on."""
        self.doing = what
        self._say(what)

    def sampled(self, codes: int, total: int) -> None:
        """How many codes each image has; told at once on a terminal, else now and then."""
        if self.terminal or time.monotonic() - self.told >= EVERY:
            self._say(f"{self.doing}: {codes / total:.0%}")

    def clear(self) -> None:
        """Leave the line to what is printed next."""
        if self.terminal:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: Any) -> None:
        self.clear()

    def _say(self, text: str) -> None:
        self.told = time.monotonic()
        if self.terminal:
            print(f"{CLEAR_LINE}{text} …", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
