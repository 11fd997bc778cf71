"""Exact actions of the plane's isometries on geometric tensors, and the elements that have one."""

import numpy as np
import torch
from escnn.group import Group, GroupElement
from escnn.gspaces import GSpace
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.tokens import Lattice, lattice_positions

Fields = GeometricTensor | Tensor


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
    return [g for g in candidates if keeps_lattice(gspace, g)]


def keeps_lattice(gspace: GSpace, element: GroupElement) -> bool:
    """Whether an element maps a square pixel lattice to itself."""
    return np.allclose(np.sort(np.abs(gspace.basespace_action(element)).ravel()), [0, 0, 1, 1], atol=1e-9)


def transform(x: Fields, element: GroupElement) -> Fields:
    r"""$(g f)(x) = \rho(g) f(g^{-1} x)$, without any interpolation; plain tensors are invariants and stay as they are.

    Args:
        x: points with coords, a grid (quarter turns exchange its sides), or a tensor without base space.
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
    if not keeps_lattice(x.type.gspace, element):
        raise ValueError(f"{element} does not map the pixels of a grid to pixels: test it on points")
    return GeometricTensor(_move_pixels(fibers, np.round(action)), x.type)


def translate(x: Fields, shift: Tensor) -> Fields:
    """Points moved by a shift (2,); invariants stay as they are."""
    if isinstance(x, Tensor) or x.coords is None:
        return x
    return GeometricTensor(x.tensor, x.type, x.coords + shift.to(x.coords))


def roll(x: Fields, rows: int, columns: int) -> Fields:
    """A periodic grid moved down by rows and to the right by columns, around its border; points and invariants stay as they are."""
    if isinstance(x, Tensor) or x.tensor.dim() != 4:
        return x
    return GeometricTensor(x.tensor.roll((rows, columns), (2, 3)), x.type)


def reorder(x: Fields, order: Tensor) -> Fields:
    """Points (n, c) in another order (n,); invariants stay as they are."""
    if isinstance(x, Tensor) or x.coords is None:
        return x
    return GeometricTensor(x.tensor[order], x.type, x.coords[order])


def _move_pixels(x: Tensor, action: np.ndarray) -> Tensor:
    height, width = x.shape[2:]
    after = (height, width) if abs(action[0, 0]) > 0.5 else (width, height)
    # the pixel that arrives at position y comes from g⁻¹y
    origin = torch.from_numpy(lattice_positions(Lattice(*after)) @ action)
    columns = (origin[:, 0] + (width - 1) / 2).round().long()
    rows = ((height - 1) / 2 - origin[:, 1]).round().long()
    return x.flatten(2)[..., rows * width + columns].unflatten(2, after)


def _act_on_fibers(field_type: FieldType, x: Tensor, element: GroupElement) -> Tensor:
    matrix = torch.as_tensor(np.asarray(field_type.fiber_representation(element)), dtype=x.dtype)
    return torch.einsum("oi,bi...->bo...", matrix, x).contiguous()
