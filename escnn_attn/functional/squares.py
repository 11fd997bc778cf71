"""Overlapping squares of a grid."""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from escnn_attn.functional.autograd import Gradients, differentiate, plain_gradients
from escnn_attn.modes import plain_operations


def squares(x: Tensor, size: int, step: int) -> Tensor:
    """Squares of a grid (b, h, y, x, w) at a step, in contiguous memory, (b, rows, columns, h, size, size, w).

    Args:
        x: the grid.
        size: side of the squares.
        step: from one square to the next.
    """
    if plain_operations() or not x.requires_grad:
        return _squares(x, size, step).contiguous()
    return Squares.apply(x, size, step)


class Squares(torch.autograd.Function):
    """By hand because torch's gradient of `unfold` visits one element at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, step: int) -> Tensor:
        ctx.shape, ctx.size, ctx.step = x.shape, size, step
        return _squares(x, size, step).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        (grad,) = grads
        if plain_gradients(grads):
            x = grad.new_zeros(ctx.shape).requires_grad_()
            return *differentiate(lambda x: _squares(x, ctx.size, ctx.step), [x], [True], grads), None, None
        total = grad.new_zeros(ctx.shape)
        to = _squares(total, ctx.size, ctx.step)
        apart = -(-ctx.size // ctx.step)  # squares as many rows and columns apart do not overlap
        for row, column in product(range(apart), repeat=2):
            to[:, row::apart, column::apart].add_(grad[:, row::apart, column::apart])
        return total, None, None


def _squares(x: Tensor, size: int, step: int) -> Tensor:
    """A view of the grid (b, h, y, x, w), (b, rows, columns, h, size, size, w)."""
    return x.unfold(2, size, step).unfold(3, size, step).permute(0, 2, 3, 1, 5, 6, 4)
