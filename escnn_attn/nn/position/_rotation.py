"""Tables of the rotary embedding: samples of the group, plane waves on them, and their phases at given positions."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from escnn.group import GroupElement
from escnn.gspaces import GSpace2D
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.arguments import require_range
from escnn_attn.fields import IrrepId, group_samples, require_planar, require_spectral, synthesis_matrix
from escnn_attn.functional import RotaryBlock, Rotation, Rotations, phases
from escnn_attn.tokens import constants

GOLDEN_ANGLE = 2.39996

#: index, wavenumbers and number of samples
Wave = tuple[int, float, int | None]


class PlanarFunctions(NamedTuple):
    """Band-limited functions on the group of a planar gspace, named by plain numbers so that it can be pickled.

    Attributes:
        subgroup: id of the group as a subgroup of O(2), as `escnn.gspaces.GSpace2D` takes it.
        irreps: ids of the irreps, in the order of the coefficients.
        coefficients: number of coefficients of a function.
    """

    subgroup: tuple
    irreps: tuple[IrrepId, ...]
    coefficients: int

    @classmethod
    def of(cls, head_type: FieldType) -> "PlanarFunctions":
        """The functions that the fields of a type are coefficients of; a ValueError if they are not spectral fields."""
        irreps = require_spectral(head_type)
        size = head_type.size // len(head_type)
        return cls(require_planar(head_type)._sg_id, irreps, size)  # a GSpace2D is rebuilt from the id of its subgroup

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


def rotations(
    functions: PlanarFunctions, pairs: int, waves: Sequence[Sequence[Wave]], heads_per_group: Sequence[int], x: Tensor
) -> Rotations:
    """What encodes the heads of each group at given positions.

    Args:
        functions: the functions on the group.
        pairs: number of channel pairs of a head.
        waves: for each head group index, length and number of rotations (None for a finite group) of the waves of its first pairs.
        heads_per_group: number of heads of each group.
        x: positions (b or 1, t, 2).
    """
    size, end, made = _block_size(pairs), 0, []
    for of_group, heads in zip(waves, heads_per_group, strict=True):
        blocks = (of_group[start : start + size] for start in range(0, pairs, size))
        end += heads  # in Python: exports do not know numbers of numpy
        made.append(Rotation(slice(end - heads, end), tuple(_block(functions, size, tuple(block), x) for block in blocks)))
    return tuple(made)


def _block(functions: PlanarFunctions, pairs: int, waves: Sequence[Wave], x: Tensor) -> RotaryBlock:
    like = {"dtype": x.dtype, "device": x.device}
    theta = phases(x, _directions(functions, waves, **like))
    return RotaryBlock(_synthesis(functions, pairs, waves, **like), torch.stack([theta.cos(), theta.sin()], dim=-1))


def _block_size(pairs: int) -> int:
    """The number of pairs of a block, which divides that of a head: wide products, without too many zeros in their matrices."""
    return next(size for size in range(min(pairs, 4), pairs + 1) if pairs % size == 0)


@constants
def _synthesis(functions: PlanarFunctions, pairs: int, waves: Sequence[Wave]) -> np.ndarray:
    """The matrix of a `RotaryBlock` with a wave for each of the first pairs."""
    columns = []
    for pair, (index, wavenumber, samples) in enumerate(waves):
        matrix = sampled_wave(functions, wavenumber, index, samples)[0]
        column = np.zeros((functions.coefficients, 2, pairs, len(matrix), 2))
        for part in range(2):
            column[:, part, pair, :, part] = matrix.T
        columns.append(column.reshape(functions.coefficients * 2 * pairs, -1))
    others = np.eye(functions.coefficients * 2 * pairs).reshape(-1, functions.coefficients * 2, pairs)[..., len(waves) :]
    return np.concatenate([*columns, others.reshape(len(others), -1)], axis=1)


@constants
def _directions(functions: PlanarFunctions, waves: Sequence[Wave]) -> np.ndarray:
    """The plane waves (n, 2) at the samples of `_synthesis`."""
    sampled = [sampled_wave(functions, wavenumber, index, samples)[1] for index, wavenumber, samples in waves]
    return np.concatenate([*sampled, np.zeros((0, 2))])
