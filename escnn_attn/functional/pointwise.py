"""Maps of functions on the group, computed on samples of it, in little memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from escnn_attn.functional.autograd import Gradients, autocasted, differentiate, plain_gradients
from escnn_attn.modes import plain_operations


class Activation(NamedTuple):
    """A pointwise map of values on samples, with its gradient written out: autograd would take a graph for each chunk.

    Attributes:
        value: of values (…, n, c), (…, n, c').
        gradient: of values and the gradient of `value`, that of the values.
    """

    value: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]


#: values on samples that `pointwise` holds at a time: few enough to stay in the cache
CHUNK = 2**19


def pointwise(coefficients: Tensor, synthesis: Tensor, analysis: Tensor, activation: Activation) -> Tensor:
    r"""$A'\,\phi(A \hat f)$: a map of functions on the group, on samples of them, and back to coefficients.

    A few tokens at a time, and computed again for the gradient: the values on the samples are never kept.

    Args:
        coefficients: (b, t, r, c).
        synthesis: the matrix $A$, (n, r).
        analysis: the matrix $A'$, (r, n).
        activation: $\phi$.
    """
    (coefficients,) = autocasted(coefficients)
    synthesis, analysis = synthesis.to(coefficients.dtype), analysis.to(coefficients.dtype)
    with torch.autocast(coefficients.device.type, enabled=False):
        if plain_operations():
            return analysis @ activation.value(synthesis @ coefficients)
        flat = Pointwise.apply(coefficients.flatten(0, 1), synthesis, analysis, activation)
        return flat.unflatten(0, coefficients.shape[:2])


class Pointwise(torch.autograd.Function):
    """`pointwise` of (t, r, c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, synthesis: Tensor, analysis: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(x, synthesis, analysis)
        ctx.activation = activation
        size = max(1, CHUNK // max(1, len(synthesis) * x.shape[2]))
        out = None
        for start in range(0, max(1, len(x)), size):
            values = activation.value(synthesis @ x[start : start + size])
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
            by_x = differentiate(lambda x: analysis @ ctx.activation.value(synthesis @ x), [x], [True], grads)
            return *by_x, None, None, None
        size = max(1, CHUNK // max(1, len(synthesis) * x.shape[2]))
        by_x = torch.empty_like(x)
        for part, of_part, to in zip(x.split(size), grad.split(size), by_x.split(size), strict=True):
            by_values = ctx.activation.gradient(synthesis @ part, analysis.mT @ of_part)
            torch.matmul(synthesis.mT, by_values, out=to)
        return by_x, None, None, None


def _product(x: Tensor) -> Tensor:
    u, v = x.chunk(2, dim=-1)
    return u * v


def _product_gradient(x: Tensor, grad: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for half, other in zip(out.chunk(2, dim=-1), reversed(x.chunk(2, dim=-1)), strict=True):
        torch.mul(grad, other, out=half)
    return out


#: the product of the first and the second half of the channels, (…, 2·c) to (…, c)
PRODUCT = Activation(_product, _product_gradient)
GELU = Activation(F.gelu, lambda x, grad: torch.ops.aten.gelu_backward(grad, x))
