"""Positions of rectangular grids by plain numbers, and constants that follow from those."""

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from escnn_attn.modes import fixed, keepable


class Lattice(NamedTuple):
    """Centered positions of a rectangular grid, by plain numbers.

    Attributes:
        height: number of rows.
        width: number of columns.
        spacing: distance between neighboring tokens.
        disc: whether only tokens within the largest centered disc are in it.
    """

    height: int
    width: int
    spacing: float = 1.0
    disc: bool = False


@lru_cache(maxsize=64)
def lattice_positions(lattice: Lattice) -> np.ndarray:
    """Positions (t, 2) of a lattice, row by row, as (x, y), y up, float64; a numpy array, so that it may be kept.

    Examples:
        >>> lattice_positions(Lattice(1, 2)).tolist()
        [[-0.5, 0.0], [0.5, 0.0]]
    """
    x, y = np.arange(lattice.width) - (lattice.width - 1) / 2, (lattice.height - 1) / 2 - np.arange(lattice.height)
    positions = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    if lattice.disc:
        positions = positions[inside_disc(lattice.height, lattice.width)]
    return positions * lattice.spacing


@lru_cache(maxsize=64)
def inside_disc(height: int, width: int) -> np.ndarray:
    """Indices of the pixels, row by row, whose centers are within the largest centered disc of a grid."""
    return np.nonzero(np.linalg.norm(lattice_positions(Lattice(height, width)), axis=1) <= min(height, width) / 2)[0]


@lru_cache(maxsize=64)
def disc_window(height: int, width: int) -> np.ndarray:
    """1 on the pixels (height, width) of the largest centered disc of a grid, and 0 beyond, with an edge one pixel wide."""
    radius = np.linalg.norm(lattice_positions(Lattice(height, width)), axis=1).reshape(height, width)
    return np.clip(min(height, width) / 2 - radius + 0.5, 0, 1)


def constants(array: Callable[..., np.ndarray]) -> Callable[..., Tensor]:
    """A function of plain numbers to an array, as one to a tensor of a `dtype` on a `device`, which is copied there once.

    Compilers take what it returns as a constant.
    """

    def make(dtype: torch.dtype | None, device: torch.device | str | None, *arguments: Hashable) -> Tensor:
        with torch.inference_mode(False):  # a later training step must be able to use it
            return torch.from_numpy(array(*arguments)).to(device, dtype, copy=True)

    kept, traced = lru_cache(maxsize=256)(make), fixed(make)

    def constant(*arguments: Hashable, dtype: torch.dtype | None = None, device: torch.device | str | None) -> Tensor:
        return (kept if keepable() else traced)(dtype, device, *arguments)

    return constant


positions_tensor, disc_index, disc_factor = constants(lattice_positions), constants(inside_disc), constants(disc_window)
