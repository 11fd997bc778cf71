"""Checks of a user's arguments."""

from collections.abc import Mapping
from typing import Any

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn.arguments import require_integer
from escnn_attn.modes import readable


def require_type(x: object, expected: FieldType) -> GeometricTensor:
    """Returns `x` if it is a geometric tensor of the expected type, and raises a TypeError otherwise."""
    if not isinstance(x, GeometricTensor):
        raise TypeError(f"expected an escnn.nn.GeometricTensor of type {expected}, got {type(x).__name__}")
    if x.type is not expected and x.type != expected:
        raise TypeError(f"expected a geometric tensor of type {expected}, got one of type {x.type}")
    return x


def require_input(x: object, expected: FieldType, module: nn.Module) -> GeometricTensor:
    """Returns `x` if it is a geometric tensor of the expected type and of the dtype of a module, and raises a TypeError otherwise."""
    geometric = require_type(x, expected)
    require_dtype(geometric.tensor, module)
    return geometric


def require_grid(x: object, expected: FieldType, module: nn.Module) -> Tensor:
    """The tensor (b, c, height, width) of what `require_input` lets pass; a TypeError for points."""
    geometric = require_input(x, expected, module)
    if geometric.coords is not None:
        raise TypeError(f"expected a grid (b, c, height, width) for the {type(module).__name__}, got points with coords")
    return geometric.tensor


def require_dtype(x: Tensor, module: nn.Module) -> None:
    """Raises a TypeError for features of another dtype than the parameters of a module; under autocast any will do, and tables adapt."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return
    own = next((t.dtype for t in module.parameters() if t.is_floating_point()), x.dtype)
    if x.dtype != own:
        name = type(module).__name__
        raise TypeError(f"expected features of {own}, the dtype of the {name}, got {x.dtype}: convert one of them by .to()")


def require_no_options(options: Mapping[str, Any]) -> None:
    """Raises a TypeError for arguments that tell where tokens are, beside tokens that have a domain."""
    if given := [name for name, value in options.items() if value is not None and value is not False]:
        raise TypeError(f"expected tokens alone, whose domain says where they are, got also {', '.join(given)}")


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
    if readable(weights) and not (torch.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"expected finite quadrature_weights that are not negative, got {float(weights.min())} to {float(weights.max())}"
        )
    return weights


#: empty clouds for each point, beyond which an index is taken for a mistake
MAX_CLOUDS_PER_POINT = 1000


def require_indices(batch: Tensor, points: int) -> Tensor:
    """Returns `batch` if it holds one cloud index per point, and raises a TypeError or ValueError otherwise."""
    if require_tensor(batch, "batch").shape != (points,) or batch.dtype != torch.long:
        raise ValueError(f"expected batch to be {points} int64 indices, got shape {tuple(batch.shape)} of {batch.dtype}")
    low, high = torch.stack(batch.aminmax()).tolist() if points else (0, 0)
    if low < 0:
        raise ValueError(f"expected batch to be indices from 0, got {low}")
    if high >= MAX_CLOUDS_PER_POINT * (points + 1):
        raise ValueError(
            f"expected batch to be indices of clouds, not many more than {points} points, got {high}: number them from 0"
        )
    return batch


def require_batch_size(batch_size: int | None, points: int) -> int | None:
    """A number of clouds, or None; a TypeError or ValueError for what is none, or far more than points."""
    if batch_size is None:
        return None
    return require_integer("batch_size", batch_size, 0, MAX_CLOUDS_PER_POINT * (points + 1))
