"""Which modes of torch are on: compilers, transforms and pretended tensors change what may be computed and kept."""

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports] (torch has no public names for them)
from torch.autograd import forward_ad


def plain_operations() -> bool:
    """Whether a compiler, a transform of `torch.func` or forward-mode differentiation runs: they need operations that they know."""
    return (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    )


def keepable() -> bool:
    """Whether tensors made now may be kept for later calls: they are neither pretended, traced nor batched."""
    return not plain_operations() and torch._C._len_torch_dispatch_stack() == 0


def readable(x: Tensor) -> bool:
    """Whether numbers can be read from a tensor: it is neither traced nor a sample of a batch of `torch.func.vmap`."""
    if torch.compiler.is_compiling():
        return False
    while is_functorch_wrapped_tensor(x):
        if is_batchedtensor(x):
            return False
        x = get_unwrapped(x)
    return True
