"""Where tokens are: the pixels of grids, and the points of flattened clouds."""

import math
from dataclasses import dataclass
from functools import lru_cache, reduce

import torch
from escnn.nn import GeometricTensor
from torch import Tensor


@lru_cache(maxsize=64)
def grid_positions(height: int, width: int) -> Tensor:
    """Centerd positions (1, height·width, 2) of the pixels of a grid, as (x, y), y up, in token spacings, float64.

    Examples:
        >>> grid_positions(1, 2).tolist()
        [[[-0.5, 0.0], [0.5, 0.0]]]
    """
    with torch.inference_mode(False):  # what is kept must do for training too
        y = (height - 1) / 2 - torch.arange(height, dtype=torch.float64)
        x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(1, -1, 2)


@dataclass(frozen=True)
class Domain:
    """Where tokens came from, and how to put tensors back there: a grid, or flattened clouds.

    Attributes:
        coords: (points, 2) of the clouds, None on a grid.
        slots: (points,) index of each point among the padded (cloud, place) pairs, None on a grid or for one cloud.
        shape: (batch, height, width), or (clouds, places).
    """

    shape: tuple[int, ...]
    coords: Tensor | None = None
    slots: Tensor | None = None

    def spread(self, x: Tensor) -> Tensor:
        """A tensor of the domain as (batch, channels, tokens), zero where there is no token."""
        if self.coords is None:
            return x.flatten(2)
        if self.slots is None:
            return x.T[None]
        padded = x.new_zeros(self.shape[0] * self.shape[1], x.shape[1]).index_copy(0, self.slots, x)
        return padded.view(*self.shape, x.shape[1]).transpose(1, 2)

    def collect(self, x: Tensor) -> Tensor:
        """The inverse of `spread`."""
        if self.coords is None:
            return x.unflatten(2, self.shape[1:])
        if self.slots is None:
            return x[0].T
        return x.transpose(1, 2).flatten(0, 1).index_select(0, self.slots)

    def edges(self, edge_index: Tensor, context: "Domain") -> Tensor:
        """A graph from points of a context to points of this domain, with padded places counted in.

        Args:
            edge_index: (2, e) int64, indices of points: key in the context (source), query here (target), as in PyTorch
                Geometric.
            context: where the keys are.

        Raises:
            ValueError: if a domain is a grid, or indices are of another shape or dtype, out of range, or join two clouds.
        """
        if self.coords is None or context.coords is None:
            raise ValueError("edge_index is a graph between points, but a grid has none: take a neighborhood")
        require_tensor(edge_index, "edge_index")
        if edge_index.dim() != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.long:
            raise ValueError(
                f"expected edge_index (2, edges) of int64, got shape {tuple(edge_index.shape)} of {edge_index.dtype}"
            )
        counts = torch.tensor([[len(context.coords)], [len(self.coords)]], device=edge_index.device)
        if ((edge_index < 0) | (edge_index >= counts)).any():
            raise ValueError(
                f"expected edge_index from {len(context.coords)} keys (first row) to {len(self.coords)} queries (second row), "
                f"got indices from {int(edge_index.min())} to {edge_index.amax(1).tolist()}"
            )
        key, query = (d.slots[i] if d.slots is not None else i for d, i in zip((context, self), edge_index, strict=True))
        if not torch.equal(key // max(1, context.shape[1]), query // max(1, self.shape[1])):
            raise ValueError("expected edges within clouds, but edge_index joins points of different clouds")
        if not key.numel():
            return torch.stack([key, query])
        places = int(key.max()) + 1
        once = torch.unique(query * places + key)  # an edge that comes twice counts once
        return torch.stack([once % places, once // places])


def require_tensor(x: object, name: str) -> None:
    """Raises a TypeError unless x is a torch tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"expected {name} to be a torch.Tensor, got {type(x).__name__}")


def domain_of(x: GeometricTensor, batch: Tensor | None = None, batch_size: int | None = None) -> Domain:
    """The domain of a geometric tensor, with clouds told apart by `batch`, one index a point.

    Raises:
        ValueError: if `batch` is given for a grid, has a wrong length or dtype, or an index outside `batch_size`, or `batch_size` comes alone.
    """
    if x.coords is None:
        if batch is not None:
            raise ValueError("batch tells the clouds of flattened points apart, but this tensor is a grid (it has no coords)")
        if batch_size not in (None, x.shape[0]):
            raise ValueError(f"batch_size is {batch_size}, but this grid has {x.shape[0]} samples")
        return Domain((x.shape[0], *x.shape[2:]))
    points = x.coords.shape[0]
    if batch is None and batch_size not in (None, 1):
        raise ValueError(f"batch_size is {batch_size}, but there is no batch to tell the clouds apart")
    if batch is None:
        return Domain((1, points), x.coords)
    require_tensor(batch, "batch")
    if batch.shape != (points,) or batch.dtype != torch.long:
        raise ValueError(f"expected batch to be {points} int64 indices, got shape {tuple(batch.shape)} of {batch.dtype}")
    if points and batch.min() < 0:
        raise ValueError(f"expected batch to be indices from 0, got {int(batch.min())}")
    counts = torch.bincount(batch, minlength=batch_size or 0)
    if batch_size is not None and len(counts) > batch_size:
        raise ValueError(f"batch holds index {len(counts) - 1}, but batch_size is {batch_size}")
    places = int(counts.max()) if len(counts) else 0
    order = torch.argsort(batch, stable=True)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(batch)
    rank[order] = torch.arange(points, device=batch.device) - starts[batch[order]]
    return Domain((len(counts), places), x.coords, batch * places + rank)


@lru_cache(maxsize=64)
def disc_window(height: int, width: int) -> Tensor:
    """1 on the pixels (height, width) of the largest centerd disc of a grid, and 0 beyond, with an edge one pixel wide."""
    with torch.inference_mode(False):
        radius = grid_positions(height, width).norm(dim=-1).view(height, width)
        return (min(height, width) / 2 - radius + 0.5).clamp(0, 1)


@lru_cache(maxsize=64)
def inside_disc(height: int, width: int) -> Tensor:
    """Indices of the pixels, row by row, whose centers are within the largest centerd disc of a grid."""
    with torch.inference_mode(False):
        return (grid_positions(height, width)[0].norm(dim=-1) <= min(height, width) / 2).nonzero()[:, 0]


def diameter(x_query: Tensor, x_key: Tensor) -> float:
    """The largest distance between two tokens of one sample, overestimated by at most 0.5 %.

    Args:
        x_query: positions (b or 1, t, 2).
        x_key: positions (b or 1, s, 2).
    """
    angles = torch.arange(16, dtype=x_query.dtype, device=x_query.device) * (math.pi / 16)
    # multiplied out: a matrix product would lose precision under autocast
    along = [x[..., :1] * angles.cos() + x[..., 1:] * angles.sin() for x in (x_query.detach(), x_key.detach()) if x.numel()]
    if not along:
        return 0.0
    width = reduce(torch.maximum, [a.amax(1) for a in along]) - reduce(torch.minimum, [a.amin(1) for a in along])
    return float(width.max()) / math.cos(math.pi / 32)
