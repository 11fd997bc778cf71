"""Neighborhoods: which keys a query attends to, by distance and never by direction."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from escnn_attn.arguments import require_integer, require_positive
from escnn_attn.functional import distances, kth_smallest
from escnn_attn.modes import constant_result, recorded
from escnn_attn.nn.neighborhood._discs import WideDiscs
from escnn_attn.nn.neighborhood._patterns import AllPairs, AttentionPattern, Graph, MaskedPairs
from escnn_attn.nn.neighborhood._tiles import disc_pattern, margin_of
from escnn_attn.tokens import Domain, Lattice, diameter, known, lattice_positions, span

#: rounding allowed for, relative to a distance: tokens at just the radius are inside however the plane is turned
MARGIN = 1e-5


class Neighborhood(ABC):
    """Base class: which keys are near enough to a query to be attended to.

    A subclass defines `pairs`. Attention stays equivariant if membership depends on distances alone.

    Examples:
        >>> import numpy as np
        >>> from escnn_attn import Neighborhood
        >>> class Ring(Neighborhood):
        ...     def pairs(self, query, key, slack):
        ...         distances = np.linalg.norm(key[:, None] - query[None], axis=-1)
        ...         return np.stack(np.nonzero((distances > 1 - slack) & (distances < 2 + slack)))
        >>> Ring().pairs(np.zeros((1, 3)), np.array([[0.5, 0, 0], [1.5, 0, 0]]), slack=0.0).tolist()
        [[1], [0]]
    """

    @abstractmethod
    def pairs(self, query: np.ndarray, key: np.ndarray, slack: float) -> np.ndarray:
        """Indices (2, e) of keys (first row) and queries (second row) that attend; pairs across samples are left out later.

        Args:
            query: positions (t, 3) of queries; the third number tells samples apart, by more than all distances inside one.
            key: positions (s, 3) of keys.
            slack: rounding of the positions: distances that differ by less are to count as equal.
        """

    def reach(self, width: float, height: float) -> float:
        """How far from a query keys may be in a periodic cell; below half of its shorter side, so that each key is near once.

        This is half of it, where `pairs` as far apart are left out. A subclass that knows how far it reaches returns less.
        """
        return min(width, height) / 2

    def pattern(self, query: Domain, key: Domain) -> AttentionPattern:
        """The pairs of tokens, for attention of a query domain to a key domain."""
        if recorded() and query.lattice is not None and key.lattice is not None:
            near = (self, (query.lattice, key.lattice), query.positions.dtype, _limit(query))
            return MaskedPairs(query, key, _near_mask(*near).to(query.positions.device), _near_distance(*near))
        return Graph(query, key, self.edges(query, key))

    def edges(self, query: Domain, context: Domain) -> Tensor:
        """The graph (2, e) from the keys of a context, numbered through as b·s, to the queries, as b·t; without padding."""
        batch, device = query.batch_size, query.positions.device
        extent = diameter(query, context)
        keys, key_index = _points(context.positions, context.attended(), batch, 2 * extent + 1)
        queries, query_index = _points(query.positions, query.mask, batch, 2 * extent + 1)
        if not len(keys) or not len(queries):
            return torch.zeros(2, 0, dtype=torch.long, device=device)
        key, row = _pairs(self, queries, keys, 4 * torch.finfo(query.positions.dtype).eps * extent)
        row, key = np.divmod(np.unique(row * len(keys) + key), len(keys))  # a pair that is given twice counts once
        same = np.abs(keys[key, 2] - queries[row, 2]) < 0.5
        key, row = _below(_limit(query), queries, keys, np.stack([key[same], row[same]]))
        return torch.from_numpy(np.stack([key_index[key], query_index[row]])).to(device)


def _pairs(neighborhood: Neighborhood, query: np.ndarray, key: np.ndarray, slack: float) -> np.ndarray:
    """The pairs (2, e) of a neighborhood, or a ValueError if they are none of these keys and queries."""
    near = np.asarray(neighborhood.pairs(query, key, slack))
    if near.ndim != 2 or len(near) != 2 or (near.size and not np.issubdtype(near.dtype, np.integer)):
        raise ValueError(f"expected pairs (2, e) of integers from {neighborhood}, got {near.shape} of {near.dtype}")
    if near.size and (near.min() < 0 or near[0].max() >= len(key) or near[1].max() >= len(query)):
        raise ValueError(
            f"expected pairs of {len(key)} keys (first row) and {len(query)} queries (second row) from {neighborhood}, got indices "
            f"from {near.min()} to {near.max(axis=1).tolist()}"
        )
    return near.astype(np.int64, copy=False)


def _limit(query: Domain) -> float:
    """The distance below which keys are near to queries: half of a periodic cell, so that of the images of a key one is at most."""
    return math.inf if query.cell is None else min(query.cell) / 2 * (1 - MARGIN)


def _below(limit: float, query: np.ndarray, key: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The pairs (2, e) of keys and queries, at positions (s, 3) and (t, 3), that are nearer than a limit."""
    if limit == math.inf:
        return pairs
    return pairs[:, np.linalg.norm(query[pairs[1], :2] - key[pairs[0], :2], axis=1) < limit]


def _points(x: Tensor, mask: Tensor | None, batch: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) of the tokens that a mask keeps, samples `gap` apart in the third number; and their indices."""
    x = x.detach().expand(batch, -1, -1).double().cpu()
    sample = torch.arange(batch, dtype=x.dtype)[:, None, None].expand(-1, x.shape[1], 1) * gap
    kept = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask.cpu()
    return torch.cat([x, sample], dim=2)[kept].numpy(), kept.flatten().nonzero()[:, 0].numpy()


def _near_pairs(
    neighborhood: Neighborhood, lattices: tuple[Lattice, Lattice], dtype: torch.dtype, limit: float
) -> tuple[np.ndarray, ...]:
    """Positions (t, 3) and (s, 3) of two lattices in a plane, and the pairs (2, e) of keys and queries that are nearer than a limit."""
    query, key = (np.pad(lattice_positions(lattice), ((0, 0), (0, 1))) for lattice in lattices)
    extent = np.linalg.norm(np.ptp(np.concatenate([query, key]), axis=0))
    pairs = _pairs(neighborhood, query, key, 4 * torch.finfo(dtype).eps * float(extent))
    return query, key, _below(limit, query, key, pairs)


@constant_result
def _near_mask(neighborhood: Neighborhood, lattices: tuple[Lattice, Lattice], dtype: torch.dtype, limit: float) -> Tensor:
    """Which keys of a lattice are near which queries, bool (1, t, s)."""
    query, key, pairs = _near_pairs(neighborhood, lattices, dtype, limit)
    mask = np.zeros((len(query), len(key)), dtype=bool)
    mask[pairs[1], pairs[0]] = True
    return torch.from_numpy(mask)[None]


@constant_result
def _near_distance(neighborhood: Neighborhood, lattices: tuple[Lattice, Lattice], dtype: torch.dtype, limit: float) -> float:
    """The largest distance of a near pair."""
    query, key, pairs = _near_pairs(neighborhood, lattices, dtype, limit)
    return float(np.linalg.norm(query[pairs[1]] - key[pairs[0]], axis=1).max(initial=0.0))


@dataclass(frozen=True)
class Disc(Neighborhood):
    """The tokens within a radius: a disc stencil on grids, a radius graph on clouds.

    On a grid, time and memory are linear in the pixels, on clouds in the edges of the graph. A disc that covers
    everything is global attention. Positions are rounded, so the radius is a little wider on wide clouds: by about 5e-7 of
    their diameter in float32. On a periodic domain the disc must be smaller than half of the cell, so that it sees each token once.

    Args:
        radius: in the units of the positions (token spacings on a grid, those of `coords` on clouds); tokens at just the radius
            are inside.

    Raises:
        TypeError: if the radius is no number.
        ValueError: if it is not positive and finite.

    Examples:
        >>> import torch
        >>> from escnn_attn import Disc, SteerableSelfAttention, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("SO2"), 2, 1)
        >>> attention = SteerableSelfAttention(t, num_heads=1, neighborhood=Disc(2.0))
        >>> x = t(torch.randn(1, 6, 5, 5))
        >>> (attention.attention_weights(x)[0, 0] > 0).sum(-1).view(5, 5)  # keys of each pixel
        tensor([[ 6,  8,  9,  8,  6],
                [ 8, 11, 12, 11,  8],
                [ 9, 12, 13, 12,  9],
                [ 8, 11, 12, 11,  8],
                [ 6,  8,  9,  8,  6]])
    """

    radius: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", require_positive("radius", self.radius))

    def reach(self, width: float, height: float) -> float:
        reach = self.radius * (1 + MARGIN)
        if not 2 * reach < min(width, height):
            raise ValueError(
                f"radius must be less than half of the periodic cell, or a disc would meet itself: expected less than "
                f"{min(width, height) / 2:g}, got {self.radius:g}"
            )
        return reach

    def pattern(self, query: Domain, key: Domain) -> AttentionPattern:
        reach = self.radius * (1 + MARGIN)
        if not known(query, key):
            return WideDiscs(query, key, reach)  # a graph would depend on numbers that cannot be read
        if not query.batch_size * key.num_tokens or diameter(query, key) <= reach:
            return AllPairs(query, key)
        if margin_of(query.lattice, key.lattice) is not None:
            return disc_pattern(query, key, reach)
        return super().pattern(query, key)

    def pairs(self, query: np.ndarray, key: np.ndarray, slack: float) -> np.ndarray:
        reach = self.radius * (1 + MARGIN) + slack
        near = KDTree(query).sparse_distance_matrix(KDTree(key), reach, output_type="ndarray")
        return np.stack([near["j"], near["i"]])


@dataclass(frozen=True)
class KNearest(Neighborhood):
    """The k nearest tokens, itself among them; tokens as far as the k-th are included, so that ties break no symmetry.

    On a periodic domain, those of them that are nearer than half of the cell, where a token is nearest once.

    Args:
        k: number of tokens; all of a smaller sample.

    Raises:
        TypeError: if k is no integer.
        ValueError: if it is less than 1.

    Examples:
        >>> import torch
        >>> from escnn_attn import KNearest, SteerableSelfAttention, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("SO2"), 2, 1)
        >>> attention = SteerableSelfAttention(t, num_heads=1, neighborhood=KNearest(3))
        >>> (attention.attention_weights(t(torch.randn(20, 6), torch.randn(20, 2))) > 0).sum(-1).unique()
        tensor([3])
    """

    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", require_integer("k", self.k))

    def pattern(self, query: Domain, key: Domain) -> AttentionPattern:
        if known(query, key):
            return super().pattern(query, key)
        far, keep = distances(query.positions, key.positions), key.attended()
        far = far if keep is None else far.masked_fill(~keep[:, None], torch.inf)
        reach = kth_smallest(far, self.k) * (1 + MARGIN) + 4 * torch.finfo(far.dtype).eps * span(query, key)
        near = (far <= reach) & far.isfinite() & (far < _limit(query))
        return MaskedPairs(query, key, near, far.detach().where(near, 0).flatten().amax(0))

    def pairs(self, query: np.ndarray, key: np.ndarray, slack: float) -> np.ndarray:
        tree, wanted = KDTree(key), min(self.k, len(key))
        asked = min(wanted + 4, len(key))
        near, index = (np.reshape(part, (len(query), asked)) for part in tree.query(query, asked))
        reach = near[:, wanted - 1] * (1 + MARGIN) + slack
        tied = (near[:, -1] <= reach) & (asked < len(key))  # as far as what was not asked for: looked up anew
        row, column = np.nonzero((near <= reach[:, None]) & ~tied[:, None])
        rows = np.nonzero(tied)[0]
        found = [np.array(keys, dtype=np.int64) for keys in tree.query_ball_point(query[rows], reach[rows])]
        again = np.repeat(rows, [len(keys) for keys in found])
        return np.stack([np.concatenate([index[row, column], *found]), np.concatenate([row, again])])
