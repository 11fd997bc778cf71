"""Which modes of torch are on: compilers, transforms and pretended tensors change what may be computed and kept."""

import torch
from torch.autograd import forward_ad


def plain_operations() -> bool:
    """Whether a compiler, a transform of `torch.func` or forward-mode differentiation runs: they need operations that they know."""
    return (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    )


def keepable() -> bool:
    """Whether tensors made now may be kept for later calls: they are neither pretended, traced nor batched."""
    return not plain_operations() and torch._C._len_torch_dispatch_stack() == 0
