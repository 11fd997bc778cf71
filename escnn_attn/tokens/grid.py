"""Tokens on the pixels of images."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.arguments import require_flag, require_instance, require_integer, require_positive
from escnn_attn.modes import keepable
from escnn_attn.tokens._checks import require_mask, require_weights
from escnn_attn.tokens.domain import Domain, T
from escnn_attn.tokens.lattice import Lattice, disc_factor, disc_index, positions_tensor

#: number of grids whose tables are kept between calls
KEPT_GRIDS = 16

_TABLES: dict[Hashable, dict[Hashable, Any]] = {}


class Grid(Domain):
    """The pixels of images of one size, with the origin at their center.

    Args:
        height: number of rows.
        width: number of columns.
        spacing: distance between neighboring tokens.
        batch_size: number of images.
        mask: (batch_size, height, width), True where a token counts, False for padding; None where all do.
        quadrature_weights: of the same shape, the share of the plane that each token stands for; None where all are equal.
        periodic: whether the grid repeats: its last column is beside the first, and its last row above the first.
        dtype: of the positions.
        device: of the positions.

    Raises:
        TypeError: if `mask` or `quadrature_weights` is not a tensor, `periodic` no bool, or another argument no number.
        ValueError: if the spacing is not positive and finite, or another argument does not fit.

    Examples:
        >>> from escnn_attn import Grid
        >>> Grid(2, 2, spacing=0.5).positions.tolist()
        [[[-0.25, 0.25], [0.25, 0.25], [-0.25, -0.25], [0.25, -0.25]]]
        >>> Grid(6, 8, spacing=0.5, periodic=True).cell  # width and height that repeat
        (4.0, 3.0)
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        spacing: float = 1.0,
        batch_size: int = 1,
        mask: Tensor | None = None,
        quadrature_weights: Tensor | None = None,
        periodic: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        spacing, batch_size = require_positive("spacing", spacing), require_integer("batch_size", batch_size, 0)
        self.height, self.width = height, width = require_integer("height", height, 0), require_integer("width", width, 0)
        if not require_instance("dtype", dtype, torch.dtype).is_floating_point:
            raise ValueError(f"expected a floating-point dtype of positions, got {dtype}")
        #: whether only the tokens within the largest centered disc are in it, or count
        self.cut = False
        #: indices of the pixels that are tokens, row by row; None for all
        self.index: Tensor | None = None
        lattice, shape = Lattice(height, width, spacing), (batch_size, height, width)
        positions = self._positions(lattice, dtype=dtype, device=device)
        mask = None if mask is None else require_mask(mask, shape)
        if quadrature_weights is not None:
            quadrature_weights = require_weights(quadrature_weights, shape, mask).flatten(1)
        super().__init__(positions, batch_size, None if mask is None else mask.flatten(1), quadrature_weights)
        self.lattice = lattice
        if require_flag("periodic", periodic):
            self.cell = (width * spacing, height * spacing)

    @staticmethod
    def _positions(lattice: Lattice, *, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
        """Positions (1, t, 2) of a lattice, for this grid alone."""
        return positions_tensor(lattice, dtype=dtype, device=device)[None].clone()

    def pad(self, x: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, channels, tokens)."""
        return x.flatten(2) if self.index is None else x.flatten(2).index_select(2, self.index)

    def unpad(self, x: Tensor) -> Tensor:
        if self.index is not None:
            x = x.new_zeros(*x.shape[:2], self.height * self.width).index_copy(2, self.index, x)
        return x.unflatten(2, (self.height, self.width))

    def geometric(self, x: Tensor, field_type: FieldType) -> GeometricTensor:
        x = x if self.mask is None else x.masked_fill(~self.mask[:, None], 0)
        return GeometricTensor(self.unpad(x), field_type)

    def table(self, name: Hashable, make: Callable[[], T]) -> T:
        if self.lattice is None or not keepable():
            return super().table(name, make)
        grid = (self.lattice, self.positions.dtype, self.positions.device)
        while grid not in _TABLES and len(_TABLES) >= KEPT_GRIDS:
            del _TABLES[next(iter(_TABLES))]  # the oldest
        tables = _TABLES.setdefault(grid, {})
        if name not in tables:
            with torch.inference_mode(False), torch.no_grad():  # a later training step must be able to use them
                tables[name] = make()
        return tables[name]

    def disc(self) -> "Grid":
        """The tokens within the largest centered disc: those that stay on the grid however it is rotated.

        Raises:
            ValueError: if the grid is periodic.
        """
        assert self.lattice is not None
        if self.cell is not None:
            raise ValueError(
                "expected a grid with a border for a disc within it, got a periodic one: it has no corners to leave out"
            )
        index = disc_index(self.height, self.width, device=self.positions.device)
        parts = {"positions": self.positions, "mask": self.mask, "quadrature_weights": self.quadrature_weights}
        kept = {name: None if part is None else part.index_select(1, index) for name, part in parts.items()}
        return self.changed(**kept, cut=True, index=index, lattice=self.lattice._replace(disc=True))

    def whole(self) -> "Grid":
        """All tokens of the grid, of which those that are in this one count."""
        assert self.lattice is not None
        lattice = self.lattice._replace(disc=False)
        inside = torch.ones_like(self.positions[:, :, 0], dtype=torch.bool) if self.mask is None else self.mask
        weights = self.quadrature_weights
        return self.changed(
            cut=False,
            index=None,
            lattice=lattice,
            positions=self._positions(lattice, dtype=self.positions.dtype, device=self.positions.device),
            mask=self.unpad(inside[:, None]).flatten(1),
            quadrature_weights=None if weights is None else self.unpad(weights[:, None]).flatten(1),
        )

    def window(self, dtype: torch.dtype) -> Tensor:
        """1 on the pixels (height, width) of the largest centered disc, and 0 beyond, with an edge one pixel wide."""
        return disc_factor(self.height, self.width, dtype=dtype, device=self.positions.device)


class OpenGrid(Grid):
    """The pixels of images whose height and width an export keeps open: positions and disc are computed from the sizes.

    Args:
        height, width, **options: those of `Grid`.
    """

    def __init__(self, height: int, width: int, **options: Any) -> None:
        super().__init__(height, width, **options)
        self.lattice = None  # no numbers follow from the sizes

    @staticmethod
    def _positions(lattice: Lattice, *, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
        return (_pixels(lattice, device) * lattice.spacing).to(dtype)[None]

    def disc(self) -> "OpenGrid":
        """All tokens, of which those within the largest centered disc count."""
        radius, largest = self._radius()
        inside = (radius <= largest).expand(self.batch_size, -1)
        mask = inside if self.mask is None else self.mask & inside
        return self.changed(cut=True, mask=mask, positions=self.positions.masked_fill(~inside[:1, :, None], 0))

    def window(self, dtype: torch.dtype) -> Tensor:
        radius, largest = self._radius()
        return (largest - radius + 0.5).clamp(0, 1).to(dtype).unflatten(0, (self.height, self.width))

    def _radius(self) -> tuple[Tensor, Tensor]:
        """Distances (t,) of the pixels from the center, and the radius of the largest centered disc, in pixels and float64."""
        pixels = _pixels(Lattice(self.height, self.width), self.positions.device)
        return pixels.square().sum(-1).sqrt(), pixels.amax(0).amin(0) + 0.5


def _pixels(lattice: Lattice, device: torch.device | str | None) -> Tensor:
    """`lattice_positions` of unit spacing by operations on symbolic sizes, float64."""
    x, y = ((2 * torch.arange(side, device=device) - (side - 1)).double() / 2 for side in (lattice.width, lattice.height))
    return torch.stack(torch.broadcast_tensors(x, -y[:, None]), dim=-1).flatten(0, 1)
