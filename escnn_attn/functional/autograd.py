"""When to use operations that torch differentiates itself instead of hand-written gradients."""

import torch


def plain_operations() -> bool:
    """Whether a compiler or a transform of `torch.func` runs: both need operations that they differentiate themselves."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
