"""Periodic domains: tokens together with their images across the border, near enough to be seen."""

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from escnn_attn.modes import readable
from escnn_attn.tokens.domain import Cell, Domain
from escnn_attn.tokens.lattice import constants, positions_tensor

#: share of a cell by which images are taken from farther than they are needed, as positions are rounded
SPARE = 1e-3


class Surroundings(NamedTuple):
    """The tokens of a domain, on a periodic one together with their images in a margin around the cell.

    Attributes:
        domain: of the tokens and their images, each at its position in the plane; it is not periodic.
        source: (1 or b, s'), the token that each of them is a copy of; None where the tokens have no images.
    """

    domain: Domain
    source: Tensor | None

    def copies(self, x: Tensor, dim: int) -> Tensor:
        """What is known of the tokens, (b or 1, …, s, …) with s at a dimension, for each of their images: (…, s', …)."""
        if self.source is None:
            return x
        if len(self.source) == 1:
            return x.index_select(dim, self.source[0])
        index = self.source.view(len(self.source), *[1] * (dim - 1), -1, *[1] * (x.dim() - dim - 1))
        return torch.take_along_dim(x, index, dim)

    def total(self, x: Tensor, num_tokens: int) -> Tensor:
        """Numbers (…, s') of all images, summed for each of the tokens: (…, num_tokens)."""
        if self.source is None:
            return x
        index = self.source.view(len(self.source), *[1] * (x.dim() - 2), -1).expand_as(x)
        return x.new_zeros(*x.shape[:-1], num_tokens).scatter_add(-1, index, x)


def surrounded(domain: Domain, reach: float) -> Surroundings:
    """The tokens of a domain and, if it is periodic, those of their images that are at most `reach` outside of the cell.

    What queries may attend to by equation (24) of docs/mathematics.md.

    Examples:
        >>> from escnn_attn import Grid
        >>> around, source = surrounded(Grid(1, 3, periodic=True), 1.0)
        >>> source.view(3, 5).tolist(), around.positions[0, :3, 0].tolist()
        ([[2, 0, 1, 2, 0], [2, 0, 1, 2, 0], [2, 0, 1, 2, 0]], [-2.0, -1.0, 0.0])
    """
    if domain.cell is None:
        return Surroundings(domain, None)
    return domain.cached(("surrounded", reach), lambda: _surrounded(domain, reach))


def _surrounded(domain: Domain, reach: float) -> Surroundings:
    return _images(domain, reach) if domain.lattice is None else _larger_lattice(domain, reach)


def _larger_lattice(domain: Domain, reach: float) -> Surroundings:
    """Rows and columns of a grid continued on all sides."""
    assert domain.lattice is not None
    height, width, spacing, _ = domain.lattice
    margin = int(reach / spacing)
    lattice = domain.lattice._replace(height=height + 2 * margin, width=width + 2 * margin)
    x = domain.positions
    index = _lattice_index(height, width, margin, device=x.device)
    positions = positions_tensor(lattice, dtype=x.dtype, device=x.device)[None]
    return _at(domain, positions, index, lattice=lattice, height=lattice.height, width=lattice.width)


@constants
def _lattice_index(height: int, width: int, margin: int) -> np.ndarray:
    """The token (1, s') that each place of the larger lattice is a copy of."""
    rows, columns = (np.arange(-margin, side + margin) % max(1, side) for side in (height, width))
    return (rows[:, None] * width + columns).reshape(1, -1)


def _images(domain: Domain, reach: float) -> Surroundings:
    """Points, and those of their eight images that are near the cell; padded to the most of any sample."""
    assert domain.cell is not None
    x, places = domain.positions, domain.num_tokens
    sides = torch.tensor(domain.cell, dtype=x.dtype, device=x.device)
    steps = sorted(itertools.product((-1.0, 0.0, 1.0), repeat=2), key=np.linalg.norm)  # the tokens themselves first
    shifts = torch.tensor(steps, dtype=x.dtype, device=x.device) * sides
    images = (x[:, None] + shifts[:, None]).flatten(1, 2)
    near = (images.detach().abs() <= sides / 2 + reach + SPARE * min(domain.cell)).all(dim=-1)
    if domain.mask is not None:
        near = near & domain.mask.repeat(1, len(steps))
    if not readable(images):  # all of them, as their number cannot be read
        index = torch.arange(near.shape[1], device=x.device) % max(1, places)
        return _at(domain, images, index.expand(len(x), -1), near)
    chosen = near.byte().argsort(dim=1, descending=True, stable=True)[:, : int(near.sum(dim=1).max()) if len(x) else 0]
    mask = None if domain.mask is None and len(x) == 1 else near.gather(1, chosen)
    return _at(domain, images.gather(1, chosen[..., None].expand(-1, -1, 2)), chosen % max(1, places), mask)


def _at(domain: Domain, positions: Tensor, index: Tensor, mask: Tensor | None = None, **changes: object) -> Surroundings:
    """Copies of the tokens of a domain at given positions."""
    around = Surroundings(domain, index)
    parts = {"mask": domain.mask if mask is None else None, "quadrature_weights": domain.quadrature_weights}
    copied = {name: None if part is None else around.copies(part, 1) for name, part in parts.items()}
    copied |= {} if mask is None else {"mask": mask}
    return around._replace(domain=domain.changed(positions=positions, cell=None, **copied, **changes))


def into_cell(x: Tensor, cell: Cell) -> Tensor:
    """Positions (…, 2) moved by multiples of the sides of a cell into the one about the origin."""
    sides = torch.tensor(cell, dtype=x.dtype, device=x.device)
    return x - sides * (x.detach() / sides).round()
