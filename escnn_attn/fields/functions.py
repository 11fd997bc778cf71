r"""Band-limited functions on the fiber group: synthesis matrices and the number of samples they need.

A function $f : G \to \mathbb{R}$ of band limit $L$ is held as the coefficients of escnn's
`spectral_regular_representation(*irreps)`; its values on samples $g_1 \dots g_N$ are $\sqrt{N} A \hat f$ with the
synthesis matrix $A$ of this module, whose columns are orthonormal.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from escnn.group import CyclicGroup, DihedralGroup, Group, GroupElement
from scipy.special import jv
from torch import Tensor

from escnn_attn.fields.irreps import IrrepId
from escnn_attn.modes import fixed

MAX_SAMPLES = 512


def band_limit(group: Group) -> int | None:
    """The highest frequency a function on the group can have; None for the continuous groups."""
    return int(rotation_order(group)) // 2 if not group.continuous else None


def rotation_order(group: Group) -> int:
    """The number of rotations in a finite group C_N or D_N (for the group of one reflection: C_2, so 2)."""
    return group.rotation_order if isinstance(group, CyclicGroup | DihedralGroup) else group.order()


def band_limited_irreps(group: Group, max_frequency: int) -> list[IrrepId]:
    """Ids of all irreps of frequency at most `max_frequency`, in escnn's order."""
    limit = band_limit(group)
    return group.bl_irreps(  # pyright: ignore[reportAttributeAccessIssue] (every planar group has it)
        max_frequency if limit is None else min(max_frequency, limit)
    )


def group_samples(group: Group, num_samples: int | None = None) -> list[GroupElement]:
    """The elements of a finite group; for SO(2) and O(2) `num_samples` uniform rotations (and their reflections)."""
    if not group.continuous:
        return list(group.elements)
    if num_samples is None:
        raise ValueError(f"{group} is continuous: a number of samples is needed")
    return group.grid(type="regular", N=num_samples)


def synthesis_matrix(group: Group, irreps: Sequence[IrrepId], elements: Sequence[GroupElement]) -> np.ndarray:
    r"""The matrix $A$ that evaluates band-limited functions on group elements: equation (8) of docs/mathematics.md.

    Row $n$ holds $\sqrt{d_\psi/M}\,\psi(g_n)$, its first $d_\psi / c_\psi$ columns flattened column by column, for each
    irrep $\psi$ in turn. On all elements of a finite group, or on more than $2L$ uniform rotations, $A^\top A = 1$.

    Args:
        group: the fiber group.
        irreps: ids of the irreps, in the order of the coefficients.
        elements: the N samples.

    Returns:
        array (N, coefficients), float64.

    Examples:
        >>> from escnn.group import so2_group
        >>> A = synthesis_matrix(so2_group(), [(0,), (1,)], group_samples(so2_group(), 4))
        >>> bool(np.allclose(A.T @ A, np.eye(3)))
        True
    """
    columns = []
    for psi in (group.irrep(*i) for i in irreps):
        copies = psi.size // psi.sum_of_squares_constituents
        values = np.stack([psi(g)[:, :copies].T.ravel() for g in elements])
        columns.append(np.sqrt(psi.size) * values)
    return np.concatenate(columns, axis=1) / np.sqrt(len(elements))


def bessel_tail(argument: float, first: int) -> float:
    r"""$\sum_{m \ge \text{first}} |J_m(z)|$, the truncation error of $N = \text{first} + 2L$ rotations for a plane wave $e^{i z\cos}$."""
    if first < 0:
        return float("inf")
    orders = np.arange(first, max(first, int(argument)) + 60)
    return float(np.abs(jv(orders, argument)).sum())


@fixed
@lru_cache(maxsize=4096)
def rotary_samples(max_frequency: int, argument: float, tolerance: float) -> int:
    r"""The smallest multiple of 4 for which the sampled rotary logit is within `tolerance` of the integral.

    Args:
        max_frequency: band limit L of queries and keys.
        argument: $|w|\cdot|x_t - x_s|$ at the largest distance, in radians.
        tolerance: bound on the tail $\sum_{m \ge N - 2L} |J_m(|w||x_t-x_s|)|$.

    Raises:
        ValueError: if more than `MAX_SAMPLES` rotations would be needed.

    Examples:
        >>> rotary_samples(3, 6.0, 1e-3), rotary_samples(3, 6.0, 1e-6)
        (20, 24)
    """
    # Bessel functions of orders below their argument do not fall off: fewer samples than it are never enough
    fewest = max(2 * max_frequency, int(min(argument, MAX_SAMPLES)))
    for samples in range(4 * (fewest // 4 + 1), MAX_SAMPLES + 1, 4):
        if bessel_tail(argument, samples - 2 * max_frequency) < tolerance:
            return samples
    raise ValueError(
        f"a wave of {argument:.0f} rad across the tokens needs more than {MAX_SAMPLES} rotations for tolerance "
        f"{tolerance:g}: take a shortest wavelength at least {argument / (MAX_SAMPLES - 2 * max_frequency - 40):.1f} "
        "times longer, or a larger tolerance"
    )


@lru_cache(maxsize=256)
def nonlinearity_samples(function: Callable[[Tensor], Tensor], max_frequency: int, tolerance: float) -> int:
    """The smallest multiple of 4 rotations at which a pointwise nonlinearity commutes with rotations to `tolerance`.

    Measured on SO(2), for Gaussian coefficients and rotations between the samples; for O(2), whose cosets are sampled
    alike, the same number holds.

    Args:
        function: the nonlinearity, as applied to the values on the samples.
        max_frequency: band limit L before and after.
        tolerance: relative error, root mean square.

    Raises:
        ValueError: if more than `MAX_SAMPLES` rotations would be needed.
    """
    for samples in range(4 * (2 * max_frequency // 4 + 1), MAX_SAMPLES + 1, 4):
        if aliasing(function, max_frequency, samples) < tolerance:
            return samples
    raise ValueError(f"aliasing of {function} stays above {tolerance:g} up to {MAX_SAMPLES} rotations; take a larger tolerance")


def aliasing(function: Callable[[Tensor], Tensor], max_frequency: int, num_samples: int) -> float:
    """Relative error, root mean square, by which a pointwise nonlinearity on `num_samples` rotations fails to commute.

    See `nonlinearity_samples`; the rotation is by half the spacing of the samples, where the error is largest.
    """
    draw = torch.Generator("cpu").manual_seed(0)
    cpu = {"dtype": torch.float64, "device": "cpu"}  # real numbers, whatever the default device is
    coefficients = torch.randn(512, 2 * max_frequency + 1, generator=draw, **cpu)
    frequencies = torch.arange(1, max_frequency + 1, **cpu)

    def apply(offset: float) -> Tensor:
        angles = torch.arange(num_samples, **cpu) * (2 * np.pi / num_samples) + offset
        waves = torch.outer(angles, frequencies)
        matrix = torch.cat([torch.full((num_samples, 1), 0.5**0.5, **cpu), waves.cos(), waves.sin()], 1) * 2**0.5
        matrix = matrix / (2 * max_frequency + 1) ** 0.5
        return function(coefficients @ matrix.T) @ matrix / num_samples

    reference = apply(0.0)
    return ((apply(np.pi / num_samples) - reference).norm() / reference.norm()).item()
