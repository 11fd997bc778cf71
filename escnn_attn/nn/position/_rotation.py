"""Tables of the rotary embedding: samples of the group, plane waves on them, and their phases at given positions."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from escnn.group import GroupElement
from escnn.gspaces import GSpace2D
from escnn.nn import FieldType
from scipy.linalg import block_diag
from torch import Tensor, nn

from escnn_attn.arguments import require_range
from escnn_attn.fields import IrrepId, group_samples, require_planar, require_spectral, synthesis_matrix
from escnn_attn.functional import phases, rotate_pairs
from escnn_attn.tokens import constants

GOLDEN_ANGLE = 2.39996

#: index, wavenumbers and number of samples
Wave = tuple[int, float, int | None]


class PlanarFunctions(NamedTuple):
    """Band-limited functions on the group of a planar gspace, named by plain numbers so that it can be pickled.

    Attributes:
        subgroup: id of the group as a subgroup of O(2), as `escnn.gspaces.GSpace2D` takes it.
        irreps: ids of the irreps, in the order of the coefficients.
    """

    subgroup: tuple
    irreps: tuple[IrrepId, ...]

    @classmethod
    def of(cls, head_type: FieldType) -> "PlanarFunctions":
        """The functions that the fields of a type are coefficients of; a ValueError if they are not spectral fields."""
        irreps = require_spectral(head_type)
        return cls(require_planar(head_type)._sg_id, irreps)  # a GSpace2D is rebuilt from the id of its subgroup

    @property
    def continuous(self) -> bool:
        return self.subgroup[1] == -1


@lru_cache(maxsize=256)
def sampled_wave(
    functions: PlanarFunctions, wavenumbers: float, index: int, num_samples: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Synthesis matrix (n, r) and plane wave B(g) w (n, 2), float64, of the frequency of an index."""
    gspace = GSpace2D(functions.subgroup)
    elements = group_samples(gspace.fibergroup, num_samples)
    matrix = synthesis_matrix(gspace.fibergroup, functions.irreps, elements)
    return matrix, rotated_waves(gspace, elements, [wavenumbers], index)[:, 0]


def spread_wavenumbers(wavelengths: Sequence[float], count: int) -> list[float]:
    r"""$|w| = 2\pi$/wavelength of `count` frequencies, evenly spaced in logarithm from the shortest to the longest; of one, the shortest.

    Raises:
        TypeError: if the wavelengths are no two numbers.
        ValueError: if they are not positive, finite and in order.
    """
    shortest, longest = require_range("wavelengths", wavelengths)
    return [float(w) for w in 2 * np.pi / np.geomspace(shortest, longest, count)]


def rotated_waves(gspace: GSpace2D, elements: list[GroupElement], wavenumbers: Sequence[float], first: int = 0) -> np.ndarray:
    """Plane waves B(g) w_f (n, f, 2), float64, with frequencies `first`, `first` + 1, … of the given lengths.

    Frequency f has direction f golden angles: for finite groups one common direction would leave attention blind
    across it.
    """
    directions = GOLDEN_ANGLE * (first + np.arange(len(wavenumbers)))
    waves = np.array(wavenumbers) * np.stack([np.cos(directions), np.sin(directions)])
    return np.stack([(gspace.basespace_action(g) @ waves).T for g in elements])


def require_fixed(module: nn.Module, *positions: Tensor) -> None:
    """Raises a ValueError, in the name of a module, for positions that require a gradient: none flows to phases."""
    wanted = [x.requires_grad for x in positions]
    if torch.is_grad_enabled() and True in wanted:
        raise ValueError(
            f"{type(module).__name__} gives no gradient with respect to positions: detach the coords, or take "
            "SteerableSelfAttention with DistanceBias or RadialBias, which do"
        )


@constants
def _synthesis(functions: PlanarFunctions, pairs: int, waves: Sequence[Wave]) -> np.ndarray:
    """Synthesis of all channel pairs of a head: of each wave, and the identity for pairs beyond them."""
    matrices = [sampled_wave(functions, wavenumber, index, samples)[0] for index, wavenumber, samples in waves]
    return np.asarray(block_diag(*matrices, np.eye((pairs - len(waves)) * matrices[0].shape[1])))


@constants
def _directions(functions: PlanarFunctions, pairs: int, waves: Sequence[Wave]) -> np.ndarray:
    """The plane waves (…, 2) at the samples of `_synthesis`, zero for pairs beyond them."""
    sampled = [sampled_wave(functions, wavenumber, index, samples) for index, wavenumber, samples in waves]
    return np.concatenate([*(wave for _, wave in sampled), np.zeros(((pairs - len(waves)) * sampled[0][0].shape[1], 2))])


class Rotation:
    r"""Coefficients of functions to their values on samples times $e^{i\theta}$, at fixed positions, and the transpose.

    One matrix synthesizes all channel pairs of a head, each on its own samples; pairs beyond the frequencies keep their
    coefficients, with angle zero.

    Args:
        functions: the functions on the group.
        pairs: number of channel pairs of a head.
        waves: index, length $|w|$ and number of rotations (None for a finite group) of the plane wave of each rotated pair.
        x: positions (b or 1, t, 2).
    """

    def __init__(self, functions: PlanarFunctions, pairs: int, waves: Sequence[Wave], x: Tensor) -> None:
        like = {"dtype": x.dtype, "device": x.device}
        self.matrix = _synthesis(functions, pairs, tuple(waves), **like)
        theta = phases(x, _directions(functions, pairs, tuple(waves), **like))[:, :, None]
        self.cos, self.sin = theta.cos(), theta.sin()
        self.width = 2 * len(self.matrix)

    def encode(self, coefficients: Tensor, rotate: bool = True) -> Tensor:
        """Coefficients (b, h, t, c, r) to values (b, h, t, width), times the phases if `rotate`."""
        functions = coefficients.transpose(1, 2).unflatten(3, (2, -1)).flatten(4)
        values = (functions @ self.matrix.mT.to(functions.dtype)).flatten(3)
        return (rotate_pairs(values, self.cos, self.sin) if rotate else values).transpose(1, 2)

    def decode(self, values: Tensor, coefficients: int, rotate: bool = True) -> Tensor:
        """The transpose of `encode`, which is its inverse projected onto the band-limited functions."""
        values = values.transpose(1, 2)
        values = rotate_pairs(values, self.cos, -self.sin) if rotate else values
        functions = values.unflatten(-1, (2, -1)) @ self.matrix.to(values.dtype)
        return functions.unflatten(-1, (-1, coefficients)).flatten(3, 4).transpose(1, 2)


class Rotations:
    """The `Rotation` of each head group, for heads beside each other, padded to the widest.

    Args:
        functions: the functions on the group.
        pairs: number of channel pairs of a head.
        waves: of the first pair of each head group, then of the second, …
        heads_per_group: number of heads of each group.
        x: positions (b or 1, t, 2).
    """

    def __init__(
        self, functions: PlanarFunctions, pairs: int, waves: Sequence[Wave], heads_per_group: Sequence[int], x: Tensor
    ) -> None:
        count = len(heads_per_group)
        self.parts = [Rotation(functions, pairs, waves[i::count], x) for i in range(count)]
        ends = np.cumsum(heads_per_group).tolist()
        self.heads = [slice(end - heads, end) for end, heads in zip(ends, heads_per_group, strict=True)]
        self.width = max(part.width for part in self.parts)

    def encode(self, coefficients: Tensor, rotate: bool = True) -> Tensor:
        """Coefficients (b, h, t, c, r) to values (b, h, t, width), times the phases if `rotate`."""
        values = [part.encode(coefficients[:, heads], rotate) for part, heads in zip(self.parts, self.heads, strict=True)]
        return torch.cat([F.pad(value, (0, self.width - value.shape[-1])) for value in values], dim=1)

    def decode(self, values: Tensor, coefficients: int, rotate: bool = True) -> Tensor:
        """The transpose of `encode`."""
        pairs = zip(self.parts, self.heads, strict=True)
        return torch.cat([part.decode(values[:, heads, :, : part.width], coefficients, rotate) for part, heads in pairs], dim=1)
