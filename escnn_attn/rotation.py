"""Tables of the rotary embedding: samples of the group, plane waves on them, and their phases at given positions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from escnn.group import GroupElement
from escnn.gspaces import GSpace2D
from escnn.nn import FieldType
from torch import Tensor

from escnn_attn.fields import frequency, require_planar, spectral_representation
from escnn_attn.functional import analyze, rotate_pairs, synthesize
from escnn_attn.sampling import IrrepId, group_samples, synthesis_matrix

GOLDEN_ANGLE = 2.39996


@dataclass(frozen=True)
class PlanarFunctions:
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
        rho, group = head_type.representations[0], head_type.fibergroup
        limit = max(frequency(group, irrep) for irrep in rho.irreps)
        if not head_type.uniform or rho != spectral_representation(group, limit):
            raise ValueError(
                f"expected copies of one spectral representation (fourier_type with a max_frequency), got {head_type}"
            )
        return cls(require_planar(head_type)._sg_id, tuple(dict.fromkeys(head_type.representations[0].irreps)))

    @property
    def continuous(self) -> bool:
        return self.subgroup[1] == -1


@lru_cache(maxsize=256)
def sampled_waves(functions: PlanarFunctions, radians: tuple[float, ...], first: int, samples: int | None) -> tuple:
    """Synthesis matrix (n, r) and plane waves B(g) w_f (n, f, 2), float64, for frequencies `first`, `first` + 1, …"""
    gspace = GSpace2D(functions.subgroup)
    elements = group_samples(gspace.fibergroup, samples)
    with torch.inference_mode(False):  # what is kept must do for training too
        matrix = torch.from_numpy(synthesis_matrix(gspace.fibergroup, functions.irreps, elements))
        return matrix, turned_waves(gspace, elements, radians, first)


def spread_radians(wavelengths: tuple[float, float], count: int) -> list[float]:
    r"""$|w| = 2\pi$/wavelength of `count` frequencies, evenly spaced in logarithm from the shortest to the longest.

    Raises:
        ValueError: if the wavelengths are not positive and in order.
    """
    shortest, longest = wavelengths
    if not 0 < shortest <= longest:
        raise ValueError(f"expected wavelengths 0 < shortest <= longest, got {wavelengths}")
    spread = np.geomspace(shortest, longest, count) if count > 1 else np.array([math.sqrt(shortest * longest)])
    return [float(w) for w in 2 * np.pi / spread]


def turned_waves(gspace: GSpace2D, elements: list[GroupElement], radians: Sequence[float], first: int = 0) -> Tensor:
    """Plane waves B(g) w_f (n, f, 2), float64, with frequencies `first`, `first` + 1, … of the given lengths.

    Frequency f has direction f golden angles: for finite groups one common direction would leave attention blind
    across it.
    """
    directions = GOLDEN_ANGLE * (first + np.arange(len(radians)))
    waves = np.array(radians) * np.stack([np.cos(directions), np.sin(directions)])
    return torch.from_numpy(np.stack([(gspace.basespace_action(g) @ waves).T for g in elements]))


def phases(x: Tensor, waves: Tensor) -> Tensor:
    """Angles (b, t, n, f) of plane waves (n, f, 2) at positions (b, t, 2)."""
    # multiplied out: a matrix product would lose precision under autocast
    return x[:, :, None, None, 0] * waves[..., 0] + x[:, :, None, None, 1] * waves[..., 1]


class FrequencyBlock:
    r"""Consecutive frequencies that share their samples: synthesis matrix, and $\cos\theta$, $\sin\theta$ at positions.

    Args:
        functions: the functions on the group.
        radians: $|w_f|$ of the frequencies.
        first: index of the first of them.
        samples: number of rotations, None for a finite group.
        x: positions (b or 1, t, 2).
    """

    def __init__(
        self, functions: PlanarFunctions, radians: tuple[float, ...], first: int, samples: int | None, x: Tensor
    ) -> None:
        matrix, waves = (table.to(x) for table in sampled_waves(functions, radians, first, samples))
        theta = phases(x, waves).flatten(2)[:, :, None]
        self.matrix, self.cos, self.sin = matrix, theta.cos(), theta.sin()
        self.frequencies = slice(first, first + len(radians))
        self.width = 2 * theta.shape[-1]

    def encode(self, coefficients: Tensor, turn: bool) -> Tensor:
        """Coefficients (r, b, t, h, 2, F) to values (b, t, h, 2·n·f) on the samples, multiplied by the phases."""
        values = synthesize(coefficients[..., self.frequencies], self.matrix.to(coefficients.dtype))
        values = values.permute(1, 2, 3, 4, 0, 5).flatten(3)
        return rotate_pairs(values, self.cos, self.sin) if turn else values

    def decode(self, values: Tensor, turn: bool) -> Tensor:
        """The inverse of `encode`, projected onto the band-limited functions."""
        if turn:
            values = rotate_pairs(values, self.cos, -self.sin)
        values = values.unflatten(-1, (2, self.matrix.shape[0], -1))
        return analyze(values.permute(4, 0, 1, 2, 3, 5), self.matrix.to(values.dtype))


class Rotation:
    """Encoding of coefficients (b, h, t, c, r) at fixed positions, and back; pairs beyond the frequencies stay as they are.

    Args:
        blocks: the frequencies, in order.
    """

    def __init__(self, blocks: list[FrequencyBlock]) -> None:
        self.blocks = blocks

    def encode(self, coefficients: Tensor, turn: bool = True) -> Tensor:
        paired = coefficients.permute(4, 0, 2, 1, 3).unflatten(-1, (2, -1))
        parts = [block.encode(paired, turn) for block in self.blocks]
        still = paired[..., self.blocks[-1].frequencies.stop :]
        if still.shape[-1]:
            parts.append(still.permute(1, 2, 3, 4, 5, 0).flatten(3))
        return _join(parts).transpose(1, 2)

    def decode(self, values: Tensor, turn: bool = True) -> Tensor:
        widths = [block.width for block in self.blocks]
        *parts, still = values.transpose(1, 2).split([*widths, values.shape[-1] - sum(widths)], dim=-1)
        decoded = [block.decode(part, turn) for block, part in zip(self.blocks, parts, strict=True)]
        if still.shape[-1]:
            coefficients = self.blocks[0].matrix.shape[1]
            decoded.append(still.unflatten(-1, (2, -1, coefficients)).permute(5, 0, 1, 2, 3, 4))
        return _join(decoded).flatten(-2).permute(1, 3, 2, 4, 0)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
