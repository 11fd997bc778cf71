"""Features at the tokens of a domain, and the way from geometric tensors to tokens and back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from typing_extensions import Unpack

from escnn_attn.arguments import require_flag, require_integer
from escnn_attn.fields import Features, IsotypicLayout
from escnn_attn.modes import kept_open, plain_number
from escnn_attn.tokens.clouds import Clouds
from escnn_attn.tokens.domain import Domain, DomainOptions, position_dtype
from escnn_attn.tokens.grid import Grid, OpenGrid


@dataclass(frozen=True)
class Tokens:
    """Isotypic features at the tokens of a domain: input and output of every layer inside a stack.

    Attributes:
        features: one tensor (d, b, t, m) per irrep: component, batch, token, copy; zero for padding at the start of a stack.
        domain: where the tokens are.

    Examples:
        >>> import torch
        >>> from escnn_attn import IsotypicLayout, Tokens, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("SO2"), 4, 1)
        >>> tokens = Tokens.of(t(torch.randn(2, 12, 5, 5)), IsotypicLayout(t))
        >>> [tuple(f.shape) for f in tokens.features], tokens.domain.positions.shape
        ([(1, 2, 25, 4), (2, 2, 25, 4)], torch.Size([1, 25, 2]))
    """

    features: Features
    domain: Domain

    @classmethod
    def of(cls, x: GeometricTensor, layout: IsotypicLayout, **options: Unpack[DomainOptions]) -> "Tokens":
        """The tokens of a geometric tensor, whose type has the given layout; `options` are those of `domain_of`."""
        return cls.on(domain_of(x, **options), x.tensor, layout)

    @classmethod
    def on(cls, domain: Domain, x: Tensor, layout: IsotypicLayout) -> "Tokens":
        """The tokens of a plain tensor on a domain; values at padding do not matter."""
        x = domain.pad(x)
        return cls(layout.split(x if domain.mask is None else x.masked_fill(~domain.mask[:, None], 0)), domain)

    def with_features(self, features: Features) -> "Tokens":
        """Other features on the same domain."""
        return replace(self, features=features)

    def geometric(self, field_type: FieldType, layout: IsotypicLayout) -> GeometricTensor:
        """The geometric tensor of the tokens; zero for padding."""
        return self.domain.geometric(layout.merge(self.features), field_type)

    def plain(self, layout: IsotypicLayout) -> Tensor:
        """The tokens as a plain tensor of their domain, such as (b, c, height, width); zero for padding."""
        x, mask = layout.merge(self.features), self.domain.mask
        return self.domain.unpad(x if mask is None else x.masked_fill(~mask[:, None], 0))

    def __add__(self, other: "Tokens") -> "Tokens":
        return self.with_features(tuple(a + b for a, b in zip(self.features, other.features, strict=True)))


def domain_of(
    x: GeometricTensor,
    *,
    batch: Tensor | None = None,
    batch_size: int | None = None,
    mask: Tensor | None = None,
    edge_index: Tensor | None = None,
    quadrature_weights: Tensor | None = None,
    periodic: bool = False,
    cell: Sequence[float] | None = None,
) -> Domain:
    """The domain of a geometric tensor: a grid, or clouds where it has `coords`.

    Args:
        x: a grid (b, c, height, width), or points (points, c) with `coords` (points, 2).
        batch: (points,) the index of each point's cloud; None for one cloud.
        batch_size: number of clouds, where trailing ones may be empty.
        mask: (b, height, width) or (points,), True where a token counts and False for padding.
        edge_index: (2, edges), indices of points, key (first row) and query (second row).
        quadrature_weights: of the shape of a mask, the share of the plane that each token stands for.
        periodic: whether a grid repeats: its opposite borders are beside each other.
        cell: width and height of the rectangle that repeats, of points alone.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument does not fit x.
    """
    if x.coords is not None:
        if require_flag("periodic", periodic):
            raise ValueError("periodic is for grids, but this tensor has coords: give the cell=(width, height) that repeats")
        shared = {"batch_size": batch_size, "mask": mask, "quadrature_weights": quadrature_weights}
        return Clouds(x.coords, batch, **shared, edge_index=edge_index, cell=cell, dtype=x.tensor.dtype)
    if cell is not None:
        raise ValueError(
            f"cell is for points, but this tensor is a grid, whose cell is its own size: take periodic=True, got {cell}"
        )
    if batch is not None:
        raise ValueError("batch tells the clouds of flattened points apart, but this tensor is a grid (it has no coords)")
    if batch_size is not None and require_integer("batch_size", batch_size, 0) != x.shape[0]:
        raise ValueError(f"batch_size is {batch_size}, but this grid has {x.shape[0]} samples")
    grid = grid_of(x.tensor, mask=mask, quadrature_weights=quadrature_weights, periodic=periodic)
    return grid if edge_index is None else grid.along(edge_index, grid)


def grid_of(
    x: Tensor,
    *,
    spacing: float = 1.0,
    mask: Tensor | None = None,
    quadrature_weights: Tensor | None = None,
    periodic: bool = False,
) -> Grid:
    """The grid of a plain tensor (b, c, height, width); the other arguments are those of `Grid`."""
    batch, _, height, width = x.shape
    options = {"spacing": spacing, "batch_size": batch, "mask": mask, "quadrature_weights": quadrature_weights}
    options |= {"periodic": periodic, "dtype": position_dtype(x.dtype), "device": x.device}
    if kept_open(height, width):
        return OpenGrid(height, width, **options)
    return Grid(plain_number(height), plain_number(width), **options)
