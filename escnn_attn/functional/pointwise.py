"""Maps of functions on the group, computed on samples of it, in little memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from escnn_attn.functional.autograd import Gradients, autocasted, differentiate, plain_gradients
from escnn_attn.modes import plain_operations

Activation = Callable[[Tensor], Tensor]

#: values on samples that `pointwise` holds at a time: few enough to stay in the cache
CHUNK = 2**19


def pointwise(coefficients: Tensor, synthesis: Tensor, analysis: Tensor, activate: Activation) -> Tensor:
    r"""$A'\,\phi(A \hat f)$: a map of functions on the group, on samples of them, and back to coefficients.

    A few tokens at a time, and computed again for the gradient: the values on the samples are never kept.

    Args:
        coefficients: (b, t, r, c).
        synthesis: the matrix $A$, (n, r).
        analysis: the matrix $A'$, (r, n).
        activate: $\phi$, of values (…, n, c) to (…, n, c').
    """
    (coefficients,) = autocasted(coefficients)
    synthesis, analysis = synthesis.to(coefficients.dtype), analysis.to(coefficients.dtype)
    with torch.autocast(coefficients.device.type, enabled=False):
        if plain_operations():
            return analysis @ activate(synthesis @ coefficients)
        flat = Pointwise.apply(coefficients.flatten(0, 1), synthesis, analysis, activate)
        return flat.unflatten(0, coefficients.shape[:2])


class Pointwise(torch.autograd.Function):
    """`pointwise` of (t, r, c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, synthesis: Tensor, analysis: Tensor, activate: Activation) -> Tensor:
        ctx.save_for_backward(x, synthesis, analysis)
        ctx.activate = activate
        size = max(1, CHUNK // max(1, len(synthesis) * x.shape[2]))
        out = None
        for start in range(0, max(1, len(x)), size):
            values = activate(synthesis @ x[start : start + size])
            if out is None:
                out = x.new_empty(len(x), len(analysis), values.shape[-1])
            torch.matmul(analysis, values, out=out[start : start + size])
        assert out is not None
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        (grad,) = grads
        x, synthesis, analysis = ctx.saved_tensors
        if plain_gradients(grads):
            by_x = differentiate(lambda x: analysis @ ctx.activate(synthesis @ x), [x], [True], grads)
            return *by_x, None, None, None
        size = max(1, CHUNK // max(1, len(synthesis) * x.shape[2]))
        by_x = torch.empty_like(x)
        for part, of_part, to in zip(x.split(size), grad.split(size), by_x.split(size), strict=True):
            values = (synthesis @ part).requires_grad_()
            with torch.enable_grad():
                (by_values,) = torch.autograd.grad(ctx.activate(values), values, analysis.mT @ of_part)
            torch.matmul(synthesis.mT, by_values, out=to)
        return by_x, None, None, None


class ProductOfHalves(torch.autograd.Function):
    """By hand because autograd would write the gradient of each half, and then both side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        u, v = x.chunk(2, dim=-1)
        return u * v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        u, v = x.chunk(2, dim=-1)
        if plain_gradients(grads):
            return torch.cat([grad * v, grad * u], dim=-1)
        out = torch.empty_like(x)
        by_u, by_v = out.chunk(2, dim=-1)
        torch.mul(grad, v, out=by_u)
        torch.mul(grad, u, out=by_v)
        return out


def product_of_halves(x: Tensor) -> Tensor:
    """The product of the first and the second half of the channels, (…, 2·c) to (…, c)."""
    if plain_operations():
        u, v = x.chunk(2, dim=-1)
        return u * v
    return ProductOfHalves.apply(x)
