"""Where hand-written gradients give way to operations that torch differentiates itself."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor  # pyright: ignore[reportMissingImports] (of is_grads_batched)

from escnn_attn.modes import plain_operations

Gradients = tuple[Tensor | None, ...]


def plain_gradients(grads: Sequence[Tensor]) -> bool:
    """Whether a backward pass must be made of plain operations: a gradient of it is wanted, or it is batched."""
    return torch.is_grad_enabled() or batched(grads)


def batched(grads: Sequence[Tensor]) -> bool:
    """Whether a backward pass is vectorized, by a transform of `torch.func` or `is_grads_batched`."""
    return plain_operations() or any(is_legacy_batchedtensor(grad) for grad in grads)


def differentiate(
    formula: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grads: Sequence[Tensor],
) -> Gradients:
    """The gradients of a formula by autograd, which can be differentiated again; None for inputs that need none."""
    wanted = [x for x, is_needed in zip(inputs, needed, strict=True) if is_needed and x is not None]
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        outputs = formula(*inputs)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        pairs = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=create_graph, allow_unused=True
            )
        )
    return tuple(next(found) if is_needed else None for is_needed in needed)


def autocasted(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype of autocast, where it is on: all but those of float64, as torch does."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)
