"""Measurements of equivariance, for all modules of escnn and of this library.

On point clouds any element of the group acts exactly. On grids only elements that map the pixel lattice to itself do
(quarter turns and axis flips), and only those are used: resampling would hide errors, or invent them.
"""

import copy
from collections.abc import Iterable
from typing import Literal, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from escnn.group import Group, GroupElement
from escnn.gspaces import GSpace
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn
from typing_extensions import Unpack

from escnn_attn.tokens import Lattice, lattice_positions

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
#: the largest default tolerance, whatever the parts of a module state
LARGEST_TOLERANCE = 1e-2


class Approximate:
    """Mixin of modules that are equivariant to continuous groups up to a stated error."""

    @property
    def equivariance_tolerance(self) -> float:
        """Relative error under continuous elements, for typical inputs; 0 for exact modules."""
        return 0.0


@runtime_checkable
class TakesFields(Protocol):
    """A module with an input of type `in_type`."""

    in_type: FieldType


@runtime_checkable
class TakesContext(Protocol):
    """A module with a second input of type `context_type`."""

    context_type: FieldType


class ErrorOptions(TypedDict, total=False):
    """Keyword arguments of `equivariance_error`."""

    elements: Iterable[GroupElement] | None
    dtype: torch.dtype
    domain: Literal["points", "grid"]
    size: int
    batch: int
    seed: int


def equivariance_error(
    module: EquivariantModule,
    *,
    elements: Iterable[GroupElement] | None = None,
    dtype: torch.dtype = torch.float64,
    domain: Literal["points", "grid"] = "grid",
    size: int = 11,
    batch: int = 2,
    seed: int = 0,
) -> list[tuple[GroupElement, float]]:
    r"""Relative error $\lVert f(g x) - g f(x)\rVert / \lVert f(x)\rVert$ of a module for elements of the group.

    The module is copied, to `dtype` and eval mode; the original is not touched.

    Args:
        module: with `in_type` on the plane (and `context_type`, where it takes two inputs); its output may be a geometric
            tensor or a tensor of invariants.
        elements: None for all elements that act exactly on a grid, or on points for all of a small finite group and
            otherwise 8 random ones.
        dtype: of the computation.
        domain: `"grid"`, a Gaussian random field on size × size pixels, or `"points"`, a random cloud.
        size: side of the grid; the cloud has 4 · size points within a disc of radius 3.
        batch: samples on a grid (a cloud is one sample).
        seed: of input and elements.

    Returns:
        the elements with their errors.

    Raises:
        ValueError: if an element does not act exactly on a grid.
    """
    if domain not in ("points", "grid"):
        raise ValueError(f'expected the domain "points" or "grid", got {domain!r}')
    in_type, module, rng = _in_type(module), _eval_copy(module, dtype), np.random.default_rng(seed)
    if elements is None:
        elements = lattice_elements(in_type.gspace) if domain == "grid" else random_elements(in_type.fibergroup, 8, rng)
    draw = torch.Generator().manual_seed(seed)
    inputs = [_random(in_type, domain, size, batch, dtype, draw)]
    if isinstance(module, TakesContext):
        inputs.append(_random(module.context_type, domain, size + 2, batch, dtype, draw))
    with torch.no_grad():
        reference = module(*inputs)
        moved = ((g, module(*(transform(x, g) for x in inputs))) for g in elements)
        return [(g, relative_error(out, transform(reference, g))) for g, out in moved]


def _eval_copy(module: EquivariantModule, dtype: torch.dtype) -> EquivariantModule:
    """A copy in another dtype and eval mode; the modes of the original and its parts are as before."""
    modes = [(part, part.training) for part in module.modules()]
    with torch.no_grad():  # escnn's modules can be copied in train mode, or with filters that were expanded so
        try:
            return copy.deepcopy(module.train()).to(dtype).eval()
        finally:
            for part, training in modes:
                if part.training != training:
                    part.train(training)


def _random(
    field_type: FieldType, domain: str, size: int, batch: int, dtype: torch.dtype, draw: torch.Generator
) -> GeometricTensor:
    """A Gaussian random field on a grid, or on a cloud of points that are uniform in a disc."""
    if domain == "grid":
        return field_type(torch.randn(batch, field_type.size, size, size, dtype=dtype, generator=draw))
    features = torch.randn(4 * size, field_type.size, dtype=dtype, generator=draw)
    radius = 3 * torch.rand(4 * size, 1, dtype=dtype, generator=draw).sqrt()
    angle = 2 * np.pi * torch.rand(4 * size, 1, dtype=dtype, generator=draw)
    return GeometricTensor(features, field_type, torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1))


def assert_equivariant(
    module: EquivariantModule, *, tolerance: float | None = None, **options: Unpack[ErrorOptions]
) -> list[tuple[GroupElement, float]]:
    """Asserts that every `equivariance_error` of a module is at most `tolerance`.

    Args:
        module: as `equivariance_error` takes it.
        tolerance: None for 1e-10 in float64 and 1e-4 in float32 or, on points, for `stated_tolerance` where that is larger.
        options: the other arguments of `equivariance_error`.

    Returns:
        the elements with their errors.

    Raises:
        AssertionError: naming the worst element and its error.
        ValueError: if no tolerance is given for a dtype without a default.

    Examples:
        >>> from escnn_attn import SteerableLinear, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("O2"), 2, 1)
        >>> errors = assert_equivariant(SteerableLinear(t, t), domain="points")
    """
    if tolerance is None:
        stated = stated_tolerance(module) if options.get("domain") == "points" else 0.0
        dtype = options.get("dtype", torch.float64)
        if dtype not in TOLERANCE:
            raise ValueError(
                f"expected a tolerance for {dtype}: only {[str(known) for known in TOLERANCE]} have one by default"
            )
        tolerance = max(TOLERANCE[dtype], stated)
    errors = equivariance_error(module, **options)
    if not errors:
        raise AssertionError(f"no element of {_in_type(module).fibergroup} was tested: equivariance was not checked")
    worst, error = max(errors, key=lambda pair: pair[1] if np.isfinite(pair[1]) else np.inf)
    if not error <= tolerance:
        raise AssertionError(
            f"{type(module).__name__} is not equivariant: relative error {error:.2e} > {tolerance:.2e} for the element {worst} "
            f"of {_in_type(module).fibergroup}"
        )
    return errors


def stated_tolerance(module: nn.Module) -> float:
    """Ten times the largest `equivariance_tolerance` of the parts of a module, at most 1e-2; 0 for finite groups."""
    if not _in_type(module).fibergroup.continuous:
        return 0.0
    stated = (part.equivariance_tolerance for part in module.modules() if isinstance(part, Approximate))
    return min(10 * max(stated, default=0.0), LARGEST_TOLERANCE)


def random_elements(group: Group, count: int, rng: np.random.Generator) -> list[GroupElement]:
    """All elements of a finite group of at most 32, and otherwise `count` random ones (of O(2) half of them reflections)."""
    if not group.continuous:
        elements = list(group.elements)
        return elements if len(elements) <= 32 else [elements[i] for i in rng.choice(len(elements), count, replace=False)]
    angles = [float(a) for a in rng.uniform(0, 2 * np.pi, count)]
    if group.name == "SO(2)":
        return [group.element(a) for a in angles]
    return [group.element((i % 2, a)) for i, a in enumerate(angles)]


def lattice_elements(gspace: GSpace) -> list[GroupElement]:
    """The elements that map a square pixel lattice to itself: at most four rotations and four reflections."""
    group = gspace.fibergroup
    candidates = group.grid(type="regular", N=8) if group.continuous else group.elements
    return [g for g in candidates if _is_signed_permutation(gspace.basespace_action(g))]


def transform(x: GeometricTensor | Tensor, element: GroupElement) -> GeometricTensor | Tensor:
    r"""$(g f)(x) = \rho(g) f(g^{-1} x)$, without any interpolation; plain tensors are invariants and stay as they are.

    Args:
        x: points with coords, a square grid, or a tensor without base space.
        element: of the fiber group; on a grid one that maps pixels to pixels.

    Raises:
        ValueError: if the element moves pixels off the lattice.
    """
    if isinstance(x, Tensor):
        return x
    fibers = _act_on_fibers(x.type, x.tensor, element)
    if x.type.gspace.dimensionality == 0:
        return GeometricTensor(fibers, x.type)
    action = x.type.gspace.basespace_action(element)
    if x.coords is not None:
        return GeometricTensor(fibers, x.type, x.coords @ torch.as_tensor(action, dtype=x.coords.dtype).T)
    if not _is_signed_permutation(action):
        raise ValueError(f"{element} does not map the pixels of a grid to pixels: test it on points")
    height, width = x.tensor.shape[2:]
    if height != width:
        raise ValueError(f"expected a square grid, got {height} × {width}")
    # the pixel that arrives at position y comes from g⁻¹y
    origin = torch.from_numpy(lattice_positions(Lattice(height, width)) @ np.round(action))
    columns = (origin[:, 0] + (width - 1) / 2).round().long()
    rows = ((height - 1) / 2 - origin[:, 1]).round().long()
    return GeometricTensor(fibers.flatten(2)[..., rows * width + columns].view_as(fibers), x.type)


def _act_on_fibers(field_type: FieldType, x: Tensor, element: GroupElement) -> Tensor:
    matrix = torch.as_tensor(np.asarray(field_type.fiber_representation(element)), dtype=x.dtype)
    return torch.einsum("oi,bi...->bo...", matrix, x).contiguous()


def _in_type(module: nn.Module) -> FieldType:
    if not isinstance(module, TakesFields) or not isinstance(module.in_type, FieldType):
        raise TypeError(f"{type(module).__name__} has no in_type: its equivariance is not defined")
    return module.in_type


def _is_signed_permutation(matrix: np.ndarray) -> bool:
    return np.allclose(np.sort(np.abs(matrix).ravel()), [0, 0, 1, 1], atol=1e-9)


def relative_error(actual: GeometricTensor | Tensor, expected: GeometricTensor | Tensor) -> float:
    """The norm of the difference divided by that of `expected`, which must be finite and not zero."""
    a, b = (t if isinstance(t, Tensor) else t.tensor for t in (actual, expected))
    norm = float(b.norm())
    if norm == 0 or not np.isfinite(norm):
        raise AssertionError(f"the output has norm {norm}: a relative error says nothing")
    return float((a - b).norm()) / norm
