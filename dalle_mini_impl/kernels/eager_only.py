"""Functions that compiled code leaves alone."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def eager_only(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """`torch.compiler.disable`, which by itself takes a second to import the compiler at once."""

    @wraps(function)
    def wrapper(*values: Given.args, **named: Given.kwargs) -> Returned:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*values, **named)
        return function(*values, **named)

    return wrapper
