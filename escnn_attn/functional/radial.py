"""Learned functions of distance, as sums of Gaussians."""

from typing import Any

import torch
from torch import Tensor

from escnn_attn.functional.autograd import Gradients, differentiate, plain_gradients
from escnn_attn.modes import plain_operations


def radial_sum(distance: Tensor, weights: Tensor) -> Tensor:
    r"""$\sum_j \kappa_{hj} \exp\bigl(-\tfrac12 (\delta - j)^2\bigr)$, one Gaussian at a time, which are computed again for the gradient.

    Args:
        distance: (b, t, s), in units of the spacing of the centers.
        weights: (h, centers).

    Returns:
        (b, h, t, s).
    """
    return _radial_sum(distance, weights) if plain_operations() else RadialSum.apply(distance, weights)


def _radial_sum(distance: Tensor, weights: Tensor) -> Tensor:
    distance = distance[:, None]
    out = distance.new_zeros(())
    for center, weight in enumerate(weights[:, :, None, None].unbind(1)):
        out = out + weight * torch.exp(-0.5 * (distance - center).square())
    return out


class RadialSum(torch.autograd.Function):
    """By hand because autograd would keep three tensors of the size of `distance` for each Gaussian."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(distance, weights)
        return _radial_sum(distance, weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        distance, weights = ctx.saved_tensors
        if plain_gradients(grads):
            return differentiate(_radial_sum, (distance, weights), ctx.needs_input_grad, grads)
        (grad,) = grads
        by_distance, by_weights = torch.zeros_like(distance), torch.empty_like(weights)
        for center in range(weights.shape[1]):
            offset = distance - center
            basis = torch.exp(-0.5 * offset.square())
            by_weights[:, center] = torch.einsum("bhts,bts->h", grad, basis)
            if ctx.needs_input_grad[0]:
                by_distance -= torch.einsum("bhts,h->bts", grad, weights[:, center]) * basis * offset
        return by_distance if ctx.needs_input_grad[0] else None, by_weights
