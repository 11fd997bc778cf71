"""Checks of a user's arguments."""

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor


def require_type(x: object, expected: FieldType) -> GeometricTensor:
    """Returns `x` if it is a geometric tensor of the expected type, and raises a TypeError otherwise."""
    if not isinstance(x, GeometricTensor):
        raise TypeError(f"expected an escnn.nn.GeometricTensor of type {expected}, got {type(x).__name__}")
    if x.type is not expected and x.type != expected:
        raise TypeError(f"expected a geometric tensor of type {expected}, got one of type {x.type}")
    return x


def require_tensor(x: object, name: str) -> Tensor:
    """Returns `x` if it is a torch tensor, and raises a TypeError otherwise."""
    if not isinstance(x, Tensor):
        raise TypeError(f"expected {name} to be a torch.Tensor, got {type(x).__name__}")
    return x


def require_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns `mask` if it is a bool tensor of a shape, and raises a TypeError or ValueError otherwise."""
    if require_tensor(mask, "mask").shape != shape or mask.dtype != torch.bool:
        raise ValueError(
            f"expected a mask of shape {tuple(shape)} and dtype torch.bool, True where a token counts, got {tuple(mask.shape)} "
            f"of {mask.dtype}"
        )
    return mask


def require_weights(weights: Tensor, shape: tuple[int, ...], mask: Tensor | None) -> Tensor:
    """Returns quadrature weights of a shape, zero for padding; raises a TypeError or ValueError for others."""
    require_tensor(weights, "quadrature_weights")
    if weights.shape != shape or not weights.is_floating_point():
        raise ValueError(
            f"expected floating-point quadrature_weights of shape {tuple(shape)}, got {tuple(weights.shape)} of {weights.dtype}"
        )
    if mask is not None:
        weights = weights.masked_fill(~mask, 0)
    if not (torch.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"expected finite quadrature_weights that are not negative, got {float(weights.min())} to {float(weights.max())}"
        )
    return weights


def require_indices(batch: Tensor, points: int) -> Tensor:
    """Returns `batch` if it holds one cloud index per point, and raises a TypeError or ValueError otherwise."""
    if require_tensor(batch, "batch").shape != (points,) or batch.dtype != torch.long:
        raise ValueError(f"expected batch to be {points} int64 indices, got shape {tuple(batch.shape)} of {batch.dtype}")
    if points and batch.min() < 0:
        raise ValueError(f"expected batch to be indices from 0, got {int(batch.min())}")
    return batch
