"""Maps of functions on the group, computed on samples of it, in little memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Activation = Callable[[Tensor], Tensor]

#: values on samples that `pointwise` holds at a time: few enough to stay in the cache
CHUNK = 2**18


def pointwise(coefficients: Tensor, synthesis: Tensor, analysis: Tensor, activate: Activation) -> Tensor:
    r"""$A'\,\phi(A \hat f)$: a map of functions on the group, on samples of them, and back to coefficients.

    A part of the functions at a time, and computed again for the gradient: the values on the samples are never kept.

    Args:
        coefficients: (r, …, c), component-leading, so that all functions go through one matrix product.
        synthesis: the matrix $A$, (n, r).
        analysis: the matrix $A'$, (r, n).
        activate: $\phi$, of values (…, c) to (…, c').
    """
    synthesis, analysis = synthesis.to(coefficients.dtype), analysis.to(coefficients.dtype)
    if torch.compiler.is_compiling():
        return _mapped(analysis, activate(_mapped(synthesis, coefficients)))
    flat = Pointwise.apply(coefficients.flatten(1, -2), synthesis, analysis, activate)
    return flat.unflatten(1, coefficients.shape[1:-1])


class Pointwise(torch.autograd.Function):
    """`pointwise` of (r, t, c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, synthesis: Tensor, analysis: Tensor, activate: Activation) -> Tensor:
        ctx.save_for_backward(x, synthesis, analysis)
        ctx.activate = activate
        size = max(1, CHUNK // max(1, len(synthesis) * x.shape[2]))
        out = None
        for start in range(0, max(1, x.shape[1]), size):
            values = activate(_mapped(synthesis, x[:, start : start + size]))
            if out is None:
                out = x.new_empty(len(analysis), x.shape[1], values.shape[2])
            _mapped(analysis, values, out=out[:, start : start + size])
        assert out is not None
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, synthesis, analysis = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a gradient of this gradient
            out = _mapped(analysis, ctx.activate(_mapped(synthesis, x)))
            return *torch.autograd.grad(out, x, grad, create_graph=True), None, None, None
        size = max(1, CHUNK // max(1, len(synthesis) * x.shape[2]))
        by_x = x.new_empty(x.shape)
        for part, of_part, to in zip(x.split(size, 1), grad.split(size, 1), by_x.split(size, 1), strict=True):
            values = _mapped(synthesis, part).requires_grad_()
            with torch.enable_grad():
                (by_values,) = torch.autograd.grad(ctx.activate(values), values, _mapped(analysis.mT, of_part))
            _mapped(synthesis.mT, by_values, out=to)
        return by_x, None, None, None


def _mapped(matrix: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """A matrix (n, r) times (r, …), as one product; `out` is contiguous behind its first axis."""
    if out is not None:
        return torch.mm(matrix, x.flatten(1), out=out.flatten(1))
    return (matrix @ x.flatten(1)).unflatten(1, x.shape[1:])


class ProductOfHalves(torch.autograd.Function):
    """By hand because autograd would write the gradient of each half, and then both side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        u, v = x.chunk(2, dim=-1)
        return u * v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        u, v = x.chunk(2, dim=-1)
        if torch.is_grad_enabled():  # for a gradient of this gradient
            return torch.cat([grad * v, grad * u], dim=-1)
        out = torch.empty_like(x)
        by_u, by_v = out.chunk(2, dim=-1)
        torch.mul(grad, v, out=by_u)
        torch.mul(grad, u, out=by_v)
        return out


def product_of_halves(x: Tensor) -> Tensor:
    """The product of the first and the second half of the channels, (…, 2·c) to (…, c)."""
    if torch.compiler.is_compiling():
        u, v = x.chunk(2, dim=-1)
        return u * v
    return ProductOfHalves.apply(x)
