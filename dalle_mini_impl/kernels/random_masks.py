"""Random masks of dropout."""

import torch
from jaxtyping import Bool
from torch import Tensor

from dalle_mini_impl.kernels.force_plain import force_plain


def random_masks(
    count: int, shape: tuple[int, ...], rate: float, device: torch.device
) -> Bool[Tensor, "count *shape"]:
    """`count` masks, False at a share of about `rate`, from torch's global random numbers."""
    if compiled_on_cpu(device):
        return fast(count, shape, rate)
    return plain(count, shape, rate, device)


def compiled_on_cpu(device: torch.device) -> bool:
    """Whether a CPU would compute the random numbers in compiled code.

    That takes about eight times as long as torch's own generator.
    """
    return torch.compiler.is_compiling() and device.type == "cpu" and not force_plain()


def plain(
    count: int, shape: tuple[int, ...], rate: float, device: torch.device
) -> Bool[Tensor, "count *shape"]:
    """One mask after the other, so that the random numbers of only one are held."""
    return torch.stack([torch.rand(shape, device=device) >= rate for _ in range(count)])


def fast(count: int, shape: tuple[int, ...], rate: float) -> Bool[Tensor, "count *shape"]:
    """The same as an operator that is not compiled."""
    return masks_on_cpu(count, list(shape), rate)


@torch.library.custom_op("dalle_mini_impl::masks_on_cpu", mutates_args=())
def masks_on_cpu(count: int, shape: list[int], rate: float) -> Tensor:
    """`plain` as an operator; the compiler may call it once where it finds it twice."""
    return plain(count, tuple(shape), rate, torch.device("cpu"))


@masks_on_cpu.register_fake
def _(count: int, shape: list[int], rate: float) -> Tensor:
    return torch.empty([count, *shape], dtype=torch.bool)
