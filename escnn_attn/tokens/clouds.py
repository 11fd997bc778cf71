"""Tokens at the points of clouds."""

from collections.abc import Sequence

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.arguments import require_pair
from escnn_attn.modes import readable
from escnn_attn.tokens._checks import require_batch_size, require_indices, require_mask, require_tensor, require_weights
from escnn_attn.tokens.domain import Cell, Domain, position_dtype
from escnn_attn.tokens.periodic import into_cell


class Clouds(Domain):
    """Flattened clouds of points, padded to the size of the largest, each with the origin at its mean.

    Args:
        coords: (points, 2), positions as (x, y).
        batch: (points,) of int64, the index of each point's cloud; None for one cloud.
        batch_size: number of clouds, where trailing ones may be empty.
        mask: (points,), True where a point counts, False for padding; None where all do.
        quadrature_weights: (points,), the share of the plane that each point stands for; None where all are equal.
        edge_index: (2, edges) of int64, a graph for attention from key (first row) to query (second row), as in PyTorch
            Geometric.
        cell: width and height of a rectangle that the plane repeats, the same for all clouds: points at its opposite borders are
            near to each other. Coords may be anywhere, and `positions` are in the cell about the origin; None for a plane that
            does not repeat.
        dtype: of the features, whose digits the positions have too; None for that of the coords.

    Raises:
        TypeError: if an argument is not a tensor, `batch_size` no integer, or `cell` no numbers.
        ValueError: if an argument does not fit the others, coords are not finite, or there are more than 1,000 clouds for each point.

    Examples:
        >>> import torch
        >>> from escnn_attn import Clouds
        >>> clouds = Clouds(torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0]]), torch.tensor([0, 0, 1]))
        >>> clouds.positions[0].tolist(), clouds.mask.tolist()
        ([[-1.0, 0.0], [1.0, 0.0]], [[True, True], [True, False]])
        >>> Clouds(torch.tensor([[0.5, 0.5], [7.5, -8.5]]), cell=(8.0, 8.0)).positions[0].tolist()
        [[0.5, 0.5], [-0.5, -0.5]]
    """

    def __init__(
        self,
        coords: Tensor,
        batch: Tensor | None = None,
        *,
        batch_size: int | None = None,
        mask: Tensor | None = None,
        quadrature_weights: Tensor | None = None,
        edge_index: Tensor | None = None,
        cell: Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if require_tensor(coords, "coords").dim() != 2 or coords.shape[1] != 2 or not coords.is_floating_point():
            raise ValueError(f"expected floating-point coords (points, 2), got {tuple(coords.shape)} of {coords.dtype}")
        self.coords = coords
        self._places, self._index = len(coords), None
        num_clouds = 1
        if batch is not None:
            indices, batch_size = require_indices(batch, len(coords)), require_batch_size(batch_size, len(coords))
            num_clouds, self._places, self._index = _arrange(indices, batch_size)
        elif require_batch_size(batch_size, len(coords)) not in (None, 1):
            raise ValueError(f"batch_size is {batch_size}, but there is no batch to tell the clouds apart")
        self.batch_size = num_clouds
        positions = coords.to(position_dtype(coords.dtype if dtype is None else torch.promote_types(coords.dtype, dtype)))
        if mask is not None:
            positions = positions.masked_fill(~require_mask(mask, coords.shape[:1])[:, None], 0)
        if readable(positions) and not torch.isfinite(positions.square()).all():
            raise ValueError(
                f"expected finite coords, also when squared in {positions.dtype}, got NaN, infinity or larger ones"
            )
        if quadrature_weights is not None:
            quadrature_weights = self._pad_numbers(require_weights(quadrature_weights, coords.shape[:1], mask))
        if mask is None and self._index is not None:
            mask = torch.ones(len(coords), dtype=torch.bool, device=coords.device)
        mask = None if mask is None else self._pad_numbers(mask)
        around = None if cell is None else require_pair("cell", cell)
        positions, center = self._placed(positions, mask, around)
        super().__init__(positions, num_clouds, mask, quadrature_weights)
        self.center, self.cell = center, around
        if edge_index is not None:
            self.edge_index = self.along(edge_index, self).edge_index

    def pad(self, x: Tensor) -> Tensor:
        """(points, channels) to (clouds, channels, places)."""
        if self._index is None:
            return x.T[None]
        padded = x.new_zeros(self.batch_size * self._places, x.shape[1]).index_copy(0, self._index, x)
        return padded.view(self.batch_size, self._places, x.shape[1]).transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        return x[0].T if self._index is None else x.transpose(1, 2).flatten(0, 1).index_select(0, self._index)

    def geometric(self, x: Tensor, field_type: FieldType) -> GeometricTensor:
        x = x if self.mask is None else x.masked_fill(~self.mask[:, None], 0)
        return GeometricTensor(self.unpad(x), field_type, coords=self.coords)

    def along(self, edge_index: Tensor, context: Domain) -> "Clouds":
        """This domain with a graph (2, e) from points of a context (first row) to points of this domain (second row).

        Raises:
            ValueError: if the context is a grid, the clouds are periodic, or indices are of another shape or dtype, out of range, or join two clouds.
        """
        if self.cell is not None:
            raise ValueError(
                f"edge_index does not say which image of a point in the periodic cell {self.cell} an edge goes to: take a neighborhood"
            )
        if not isinstance(context, Clouds):
            return super().along(edge_index, context)
        if require_tensor(edge_index, "edge_index").dim() != 2 or len(edge_index) != 2 or edge_index.dtype != torch.long:
            raise ValueError(
                f"expected edge_index (2, edges) of int64, got shape {tuple(edge_index.shape)} of {edge_index.dtype}"
            )
        counts = torch.tensor([[len(context.coords)], [len(self.coords)]], device=edge_index.device)
        if readable(edge_index) and ((edge_index < 0) | (edge_index >= counts)).any():
            raise ValueError(
                f"expected edge_index from {len(context.coords)} keys (first row) to {len(self.coords)} queries (second row), "
                f"got indices from {int(edge_index.min())} to {edge_index.amax(1).tolist()}"
            )
        key, query = context._numbered(edge_index[0]), self._numbered(edge_index[1])
        if not torch.equal(key // max(1, context._places), query // max(1, self._places)):
            raise ValueError("expected edges within clouds, but edge_index joins points of different clouds")
        if not key.numel():
            return self.changed(edge_index=torch.stack([key, query]))
        keys = int(key.max()) + 1
        once = torch.unique(query * keys + key)  # repeated edges count once
        return self.changed(edge_index=torch.stack([once % keys, once // keys]))

    def _placed(self, x: Tensor, mask: Tensor | None, cell: Cell | None) -> tuple[Tensor, Tensor | None]:
        """Positions (b, t, 2) of points (points, 2), zero for padding, and their center: that of a cell is the origin."""
        if cell is None:
            return _centered(self.pad(x).mT, mask)
        return self.pad(into_cell(x, cell)).mT, None

    def _numbered(self, points: Tensor) -> Tensor:
        """Numbers of points among the padded places of all clouds."""
        return points if self._index is None else self._index[points]

    def _pad_numbers(self, x: Tensor) -> Tensor:
        return self.pad(x[:, None])[:, 0]


class PaddedClouds(Domain):
    """Clouds that are padded already, each with the origin at its mean: for plain tensors, whose sizes a compiler may keep open.

    Args:
        coords: (b, points, 2).
        mask: (b, points), True where a point counts.
    """

    def __init__(self, coords: Tensor, mask: Tensor) -> None:
        positions, center = _centered(coords.to(position_dtype(coords.dtype)).masked_fill(~mask[..., None], 0), mask)
        super().__init__(positions, coords.shape[0], mask)
        self.center = center

    def pad(self, x: Tensor) -> Tensor:
        """(b, points, channels) to (b, channels, points)."""
        return x.transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)

    def geometric(self, x: Tensor, field_type: FieldType) -> GeometricTensor:
        assert self.mask is not None
        assert self.center is not None
        x, coords = self.unpad(x.masked_fill(~self.mask[:, None], 0)), self.positions + self.center
        return GeometricTensor(x.flatten(0, 1), field_type, coords.flatten(0, 1))


def _arrange(batch: Tensor, batch_size: int | None) -> tuple[int, int, Tensor]:
    """Number of clouds, size of the largest, and the number of each point among the padded places of all clouds."""
    counts = torch.bincount(batch, minlength=batch_size or 0)
    if batch_size is not None and len(counts) > batch_size:
        raise ValueError(f"batch holds index {len(counts) - 1}, but batch_size is {batch_size}")
    places = int(counts.max()) if len(counts) else 0
    order = torch.argsort(batch, stable=True)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(batch)
    rank[order] = torch.arange(len(batch), device=batch.device) - starts[batch[order]]
    return len(counts), places, batch * places + rank


def _centered(positions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Positions (b, t, 2) about the mean of those that count, zero for padding; and the mean (b, 1, 2)."""
    if mask is None:
        center = positions.mean(dim=1, keepdim=True) if positions.shape[1] else positions.new_zeros(1, 1, 2)
        return positions - center, center
    share = mask[..., None].to(positions.dtype)
    center = (positions * share).sum(1, keepdim=True) / share.sum(1, keepdim=True).clamp(min=1)
    return (positions - center) * share, center
