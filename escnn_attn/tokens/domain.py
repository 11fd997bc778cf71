"""Base class of grids and clouds: where tokens are, and a cache of everything that depends on it."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, reduce
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from typing_extensions import Self

from escnn_attn.modes import fixed, readable
from escnn_attn.tokens.lattice import Lattice, lattice_positions

T = TypeVar("T")


class DomainOptions(TypedDict, total=False):
    """Keyword arguments of the `forward` of every layer, which `domain_of` turns into a domain (see `TokenModule.forward`)."""

    batch: Tensor | None
    batch_size: int | None
    mask: Tensor | None
    edge_index: Tensor | None
    quadrature_weights: Tensor | None
    periodic: bool
    cell: Sequence[float] | None


#: width and height of the rectangle that a periodic domain repeats, in the units of the positions
Cell = tuple[float, float]


class Domain(ABC):
    """Base class of `Grid` and `Clouds`: where the tokens of one call are.

    What is cached assumes that neither the domain nor the modules that use it change.

    Attributes:
        positions: (b, t, 2), or (1, t, 2) where all samples share them, as (x, y), y up, about the center.
        batch_size: number of samples b.
        mask: (b, t), True where a token counts, False for padding; None where every token counts.
        quadrature_weights: (b, t), the share of the plane that each token stands for; None where all are equal.
        edge_index: (2, e), a graph for attention from key to query, with tokens numbered through as b·t; None without.
        center: (b, 1, 2) of clouds, in the coordinates of the input; None for the origin.
        lattice: the positions as plain numbers, where they are those of a centered grid; None elsewhere.
        cell: width and height of the rectangle about the origin that the domain repeats periodically; None where the plane does not
            repeat.

    Examples:
        >>> from escnn_attn import Domain, Grid
        >>> domain: Domain = Grid(2, 3)
        >>> domain.num_tokens, domain.cached("number of tokens, doubled", lambda: 2 * domain.num_tokens)
        (6, 12)
    """

    def __init__(
        self, positions: Tensor, batch_size: int, mask: Tensor | None = None, quadrature_weights: Tensor | None = None
    ) -> None:
        self.positions, self.batch_size = positions, batch_size
        self.mask, self.quadrature_weights = mask, quadrature_weights
        self.edge_index: Tensor | None = None
        self.center: Tensor | None = None
        self.lattice: Lattice | None = None
        self.cell: Cell | None = None
        self._cache: dict[Hashable, Any] = {}
        #: apart, as compilers make a graph for each set of names in the cache, and tables have numbers in theirs
        self._tables: dict[Hashable, Any] = {}

    @property
    def num_tokens(self) -> int:
        return self.positions.shape[1]

    @abstractmethod
    def pad(self, x: Tensor) -> Tensor:
        """A tensor of the domain as (b, channels, tokens), zero where there is no token."""

    @abstractmethod
    def unpad(self, x: Tensor) -> Tensor:
        """The inverse of `pad`."""

    @abstractmethod
    def geometric(self, x: Tensor, field_type: FieldType) -> GeometricTensor:
        """A tensor (b, channels, tokens) as a geometric tensor of the domain; zero for padding."""

    def attended(self) -> Tensor | None:
        """Tokens to attend to as keys, bool (b, t): neither padding nor of weight zero; None for all."""
        if self.quadrature_weights is None:
            return self.mask
        positive = self.quadrature_weights > 0
        return positive if self.mask is None else positive & self.mask

    def cached(self, name: Hashable, make: Callable[[], T], context: "Domain | None" = None) -> T:
        """The result of `make`, computed once per domain, or pair of domain and context: layers of one call share it."""
        key = name if context is None or context is self else (name, context)
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def table(self, name: Hashable, make: Callable[[], T]) -> T:
        """As `cached`, for constants that depend on the positions alone: grids keep them between calls."""
        if name not in self._tables:
            with torch.no_grad():
                self._tables[name] = make()
        return self._tables[name]

    def about(self, other: "Domain") -> "Domain":
        """This domain with positions about the center of another, for attention between the two."""
        if other is self or (self.center is None and other.center is None):
            return self
        return self.cached("about", lambda: self._about(other), other)

    def _about(self, other: "Domain") -> "Domain":
        shift = torch.zeros((), dtype=self.positions.dtype, device=self.positions.device)
        for sign, center in ((1, self.center), (-1, other.center)):
            shift = shift if center is None else shift + sign * center
        if other.mask is not None:  # no token to be near to: positions stay about their own center
            shift = shift * other.mask.any(dim=1)[:, None, None]
        positions = self.positions + shift
        if self.mask is not None:
            positions = positions.masked_fill(~self.mask[..., None], 0)
        return self.changed(positions=positions, center=other.center, lattice=None)

    def along(self, edge_index: Tensor, context: "Domain") -> Self:
        """This domain with a graph (2, e) from points of a context (first row) to points of this domain (second row).

        Raises:
            ValueError: if a domain is a grid.
        """
        raise ValueError("edge_index is a graph between points, but a grid has none: take a neighborhood")

    def changed(self, **changes: Any) -> Self:
        """A copy with other attributes and an empty cache."""
        changed = copy.copy(self)
        vars(changed).update(changes, _cache={}, _tables={})
        return changed


def position_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of positions and phases beside features of `dtype`: never below float32."""
    return dtype if dtype == torch.float64 else torch.float32


def diameter(query: Domain, key: Domain) -> float:
    """The largest distance between two tokens of one sample, overestimated by at most 0.5 %."""
    if query.lattice and key.lattice:  # from plain numbers: no device has to be waited for
        return _lattice_diameter(query.lattice, key.lattice)
    if not known(query, key):
        raise ValueError(
            "the distances of tokens cannot be read inside torch.func.vmap, a compiler, or an export that keeps sizes open: give "
            "RotaryEmbedding a max_distance, and neighborhoods other than Disc and KNearest as graphs (edge_index)"
        )
    return query.cached("diameter", lambda: float(span(query, key)), key)


def known(query: Domain, key: Domain) -> bool:
    """Whether distances between the tokens of two domains are plain numbers: of grids of fixed size, or because they can be read."""
    return bool(query.lattice and key.lattice) or (readable(query.positions) and readable(key.positions))


def span(query: Domain, key: Domain) -> Tensor:
    """`diameter` as a tensor, which need not be read."""
    return query.cached("span", lambda: _span(query.positions, key.positions), key)


@fixed
@lru_cache(maxsize=64)
def _lattice_diameter(query: Lattice, key: Lattice) -> float:
    angles = np.arange(16) * (math.pi / 16)
    along = [lattice_positions(lattice) @ np.stack([np.cos(angles), np.sin(angles)]) for lattice in (query, key)]
    along = [a for a in along if a.size]
    if not along:
        return 0.0
    width = np.max([a.max(axis=0) for a in along], axis=0) - np.min([a.min(axis=0) for a in along], axis=0)
    return float(width.max()) / math.cos(math.pi / 32)


def _span(*positions: Tensor) -> Tensor:
    angles = torch.arange(16, dtype=positions[0].dtype, device=positions[0].device) * (math.pi / 16)
    # multiplied out: a matrix product would lose precision under autocast
    along = [x[..., :1] * angles.cos() + x[..., 1:] * angles.sin() for x in positions if x.numel()]
    if not along:
        return positions[0].new_zeros(())
    width = reduce(torch.maximum, [a.amax(1) for a in along]) - reduce(torch.minimum, [a.amin(1) for a in along])
    return width.detach().max() / math.cos(math.pi / 32)
