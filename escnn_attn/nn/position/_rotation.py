"""Tables of the rotary embedding: samples of the group, plane waves on them, and their phases at given positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from escnn.group import GroupElement
from escnn.gspaces import GSpace2D
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.fields.functions import IrrepId, group_samples, synthesis_matrix
from escnn_attn.fields.types import frequency, require_planar, spectral_representation
from escnn_attn.functional.attention import rotate_pairs

GOLDEN_ANGLE = 2.39996

#: index, radians and number of samples
Wave = tuple[int, float, int | None]


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
def sampled_wave(functions: PlanarFunctions, radians: float, index: int, samples: int | None) -> tuple[Tensor, Tensor]:
    """Synthesis matrix (n, r) and plane wave B(g) w (n, 2), float64, of the frequency of an index."""
    gspace = GSpace2D(functions.subgroup)
    elements = group_samples(gspace.fibergroup, samples)
    with torch.inference_mode(False):  # what is kept must do for training too
        matrix = torch.from_numpy(synthesis_matrix(gspace.fibergroup, functions.irreps, elements))
        return matrix, rotated_waves(gspace, elements, [radians], index)[:, 0]


def spread_radians(wavelengths: tuple[float, float], count: int) -> list[float]:
    r"""$|w| = 2\pi$/wavelength of `count` frequencies, evenly spaced in logarithm from the shortest to the longest; of one, the shortest.

    Raises:
        ValueError: if the wavelengths are not positive and in order.
    """
    shortest, longest = wavelengths
    if not 0 < shortest <= longest:
        raise ValueError(f"expected wavelengths 0 < shortest <= longest, got {wavelengths}")
    return [float(w) for w in 2 * np.pi / np.geomspace(shortest, longest, count)]


def rotated_waves(gspace: GSpace2D, elements: list[GroupElement], radians: Sequence[float], first: int = 0) -> Tensor:
    """Plane waves B(g) w_f (n, f, 2), float64, with frequencies `first`, `first` + 1, … of the given lengths.

    Frequency f has direction f golden angles: for finite groups one common direction would leave attention blind
    across it.
    """
    directions = GOLDEN_ANGLE * (first + np.arange(len(radians)))
    waves = np.array(radians) * np.stack([np.cos(directions), np.sin(directions)])
    return torch.from_numpy(np.stack([(gspace.basespace_action(g) @ waves).T for g in elements]))


def phases(x: Tensor, waves: Tensor) -> Tensor:
    """Angles (b, t, …) of plane waves (…, 2) at positions (b, t, 2)."""
    # multiplied out: a matrix product would lose precision under autocast
    x, y = (part.reshape(*part.shape, *[1] * (waves.dim() - 1)) for part in x.unbind(-1))
    return x * waves[..., 0] + y * waves[..., 1]


def require_fixed(module: nn.Module, *positions: Tensor) -> None:
    """Raises a ValueError, in the name of a module, for positions that require a gradient: none flows to phases."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in positions):
        raise ValueError(
            f"{type(module).__name__} gives no gradient with respect to positions: detach the coords, or take "
            "SteerableSelfAttention with DistanceBias or RadialBias, which do"
        )


class Rotation:
    r"""Coefficients of functions to their values on samples times $e^{i\theta}$, at fixed positions, and the transpose.

    One matrix synthesises all channel pairs of a head, each on its own samples; pairs beyond the frequencies stay the
    coefficients they are, with angle zero.

    Args:
        functions: the functions on the group.
        pairs: channel pairs of a head.
        waves: index, length $|w|$ and number of rotations (None for a finite group) of the plane wave of each pair that
            is turned, at most as many.
        x: positions (b or 1, t, 2).
    """

    def __init__(self, functions: PlanarFunctions, pairs: int, waves: Sequence[Wave], x: Tensor) -> None:
        sampled = [sampled_wave(functions, radians, index, samples) for index, radians, samples in waves]
        self.coefficients = sampled[0][0].shape[1]
        still = (pairs - len(sampled)) * self.coefficients
        identity = torch.eye(still, dtype=torch.float64, device="cpu")
        self.matrix = torch.block_diag(*(matrix for matrix, _ in sampled), identity).to(x)
        theta = phases(x, torch.cat([*(wave for _, wave in sampled), identity.new_zeros(still, 2)]).to(x))[:, :, None]
        self.cos, self.sin = theta.cos(), theta.sin()
        self.width = 2 * len(self.matrix)

    def encode(self, coefficients: Tensor, turn: bool = True) -> Tensor:
        """Coefficients (b, h, t, c, r) to values (b, h, t, width), times the phases where they `turn`."""
        functions = coefficients.transpose(1, 2).unflatten(3, (2, -1)).flatten(4)
        values = (functions @ self.matrix.mT.to(functions.dtype)).flatten(3)
        return (rotate_pairs(values, self.cos, self.sin) if turn else values).transpose(1, 2)

    def decode(self, values: Tensor, turn: bool = True) -> Tensor:
        """The transpose of `encode`, which is its inverse projected onto the band-limited functions."""
        values = values.transpose(1, 2)
        values = rotate_pairs(values, self.cos, -self.sin) if turn else values
        functions = values.unflatten(-1, (2, -1)) @ self.matrix.to(values.dtype)
        return functions.unflatten(-1, (-1, self.coefficients)).flatten(3, 4).transpose(1, 2)


class Rotations:
    """The `Rotation` of each scale, for heads beside each other, padded to the widest.

    Args:
        functions: the functions on the group.
        pairs: channel pairs of a head.
        waves: of the first pair of each scale, then of the second, …
        heads: number of heads of each scale.
        x: positions (b or 1, t, 2).
    """

    def __init__(self, functions: PlanarFunctions, pairs: int, waves: Sequence[Wave], heads: Sequence[int], x: Tensor) -> None:
        self.parts = [Rotation(functions, pairs, waves[i :: len(heads)], x) for i in range(len(heads))]
        ends = np.cumsum(heads).tolist()
        self.heads = [slice(end - count, end) for end, count in zip(ends, heads, strict=True)]
        self.width = max(part.width for part in self.parts)

    def encode(self, coefficients: Tensor, turn: bool = True) -> Tensor:
        """Coefficients (b, h, t, c, r) to values (b, h, t, width), times the phases where they `turn`."""
        values = [part.encode(coefficients[:, heads], turn) for part, heads in zip(self.parts, self.heads, strict=True)]
        return torch.cat([F.pad(value, (0, self.width - value.shape[-1])) for value in values], dim=1)

    def decode(self, values: Tensor, turn: bool = True) -> Tensor:
        """The transpose of `encode`."""
        pairs = zip(self.parts, self.heads, strict=True)
        return torch.cat([part.decode(values[:, heads, :, : part.width], turn) for part, heads in pairs], dim=1)
