"""Which keys each query attends to: all of them, those of a disc on a grid, or those of a graph."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from escnn_attn.domains import grid_positions
from escnn_attn.edges import attend_edges, spatial_order
from escnn_attn.functional import attend, attention_weights, distances
from escnn_attn.tokens import Tokens

#: numbers in the copies of keys that one band of tiles makes
BAND = 2**21

Bias = Callable[[Tensor, Tensor], Tensor | None]


class AttentionPattern(ABC):
    """Attention of the tokens of one call to those of a context, over the pairs that a subclass chooses.

    Args:
        query: tokens that attend.
        context: tokens attended to, with positions about the same centre; padding, and weight zero, is left out.

    Attributes:
        distance: largest distance between a query and a key of it; None for that of all tokens.
    """

    distance: float | None = None

    def __init__(self, query: Tokens, context: Tokens) -> None:
        self.x_query, self.x_key = query.positions, context.positions
        self.keep, self.log_weight = context.mask, None
        if context.weights is not None:
            positive = context.weights > 0
            self.keep = positive if self.keep is None else self.keep & positive
            self.log_weight = context.weights.where(positive, 1).log()

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        """Weighted sums of the values, (b, h, t, width); finite, but arbitrary, for queries that are not `reached`.

        Keys and values may also be several, e in a row, at each token: (b, h, s·e, width).

        Args:
            q: (b, h, t, width).
            k: (b, h, s, width).
            v: (b, h, s, width).
            scale: factor of the logits.
            bias: gives logits (b, h, t, s) of positions (b, t, 2) and (b, s, 2): `PositionEmbedding.bias`.
        """

    @abstractmethod
    def allowed(self) -> Tensor | None:
        """The pairs, bool and broadcastable to (b, 1, t, s), None for all; for inspection: this stores tokens²."""

    @abstractmethod
    def reached(self) -> Tensor | None:
        """Queries that have a key, bool (b, t); None where all have."""

    def weights(self, q: Tensor, k: Tensor, scale: float, bias: Bias) -> Tensor:
        """The attention weights (b, h, t, s), for inspection: this stores tokens²."""
        return attention_weights(q, k, scale, self.allowed(), self._dense_bias(bias))

    def _dense_bias(self, bias: Bias) -> Tensor | None:
        of_keys = None if self.log_weight is None else self.log_weight[:, None, None]
        return _add(bias(self.x_query, self.x_key), of_keys)


class AllPairs(AttentionPattern):
    """Every token attends to every token of its sample, in one fused call."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        copies = k.shape[2] // max(1, self.x_key.shape[1])
        keep, logits = (_repeat(part, copies) for part in (self.allowed(), self._dense_bias(bias)))
        return attend(q, k, v, scale, keep, logits)

    def allowed(self) -> Tensor | None:
        return None if self.keep is None else self.keep[:, None, None]

    def reached(self) -> Tensor | None:
        if self.x_key.shape[1] == 0:
            return self.x_query.new_zeros(self.x_query.shape[:2], dtype=torch.bool)
        return None if self.keep is None else self.keep.any(dim=1, keepdim=True).expand(-1, self.x_query.shape[1])


class Tiles(AttentionPattern):
    """Discs on a grid: square tiles of queries meet the keys of a window around them, of which a mask keeps the discs.

    Time and memory are linear in the pixels.

    Args:
        query: tokens of a grid.
        context: tokens of the same grid.
        radius: of the discs, in token spacings.
    """

    def __init__(self, query: Tokens, context: Tokens, radius: float) -> None:
        super().__init__(query, context)
        assert context.key is not None
        assert query.key == context.key
        _, self.height, self.width = context.key
        self.distance = self.radius = radius
        self.halo = int(radius)
        self.side = min(max(4, 2 * self.halo + 2), max(self.height, self.width))
        self.rows, self.columns = -(-self.height // self.side), -(-self.width // self.side)

    @cached_property
    def near(self) -> Tensor:
        """Keys of the windows (b or 1, tiles, 1, queries of a tile, keys of a window) that are in the disc of a query."""
        exists = self.x_key.new_ones(1, self.height * self.width, dtype=torch.bool) if self.keep is None else self.keep
        query, key = self._tile_positions()
        return self._of_keys(exists) & (distances(query, key)[0] <= self.radius)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        batch, copies = q.shape[0], k.shape[2] // (self.height * self.width)
        logits = bias(*self._tile_positions())
        logits = None if logits is None else logits[:, None]
        if self.log_weight is not None:
            logits = _add(logits, self._of_keys(self.log_weight))
        # in bands of rows of tiles: their copies of keys and values stay small enough to be reused
        window = self.columns * (self.side + 2 * self.halo) ** 2 * batch * copies * k.shape[1] * k.shape[3]
        rows = min(self.rows, max(1, BAND // max(1, window)))
        bands = zip(self._bands(q, rows, 0), self._bands(k, rows, self.halo), self._bands(v, rows, self.halo), strict=True)
        out = []
        for index, (query, key, value) in enumerate(bands):
            tiles = slice(index * rows * self.columns, (index + 1) * rows * self.columns)
            terms = (_repeat(t if t is None or t.shape[1] == 1 else t[:, tiles], copies) for t in (self.near, logits))
            query = self._tiles(query, self.side)
            keep, added = (t if t is None else t.expand(batch, query.shape[1], *t.shape[2:]).flatten(0, 1) for t in terms)
            flat = (x.flatten(0, 1) for x in (query, self._tiles(key, copies=copies), self._tiles(value, copies=copies)))
            out.append(self._untile(attend(*flat, scale, keep, added), batch))
        return torch.cat(out, dim=2)[:, :, : self.height, : self.width].flatten(2, 3)

    def allowed(self) -> Tensor:
        disc = (distances(self.x_query, self.x_key) <= self.radius)[:, None]
        return disc if self.keep is None else disc & self.keep[:, None, None]

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        any_key = self.near.any(dim=-1)[..., None].flatten(0, 1)
        return self._untile(any_key, self.near.shape[0])[:, 0, : self.height, : self.width, 0].flatten(1)

    def _tile_positions(self) -> tuple[Tensor, Tensor]:
        """Positions (1, t, 2) of the queries of any tile and (1, s, 2) of the keys of its window."""
        query, key = (grid_positions(n, n).to(self.x_key) for n in (self.side, self.side + 2 * self.halo))
        return query, key

    def _of_keys(self, x: Tensor) -> Tensor:
        """Something of the keys (b, s), for each window: (b, tiles, 1, 1, keys of a window)."""
        (band,) = self._bands(x[:, None, :, None], self.rows, self.halo)
        return self._tiles(band)[..., 0][:, :, :, None]

    def _bands(self, x: Tensor, rows: int, halo: int) -> list[Tensor]:
        """Tokens (b, h, s·e, w) as bands of `rows` rows of tiles, (b, h, y, x, e·w), with a halo, and zeros beyond the grid."""
        x = x.unflatten(2, (self.height, self.width, -1)).flatten(4)
        right, below = self.columns * self.side - self.width, self.rows * self.side - self.height
        blocks = F.pad(x, (0, 0, halo, halo + right, 0, below)).split(rows * self.side, dim=2)
        if halo == 0:
            return list(blocks)
        edge = torch.zeros_like(blocks[0][:, :, :1]).expand(-1, -1, halo, -1, -1)
        above = [edge, *(block[:, :, -halo:] for block in blocks[:-1])]
        under = [*(block[:, :, :halo] for block in blocks[1:]), edge]
        return [torch.cat(parts, dim=2) for parts in zip(above, blocks, under, strict=True)]

    def _tiles(self, band: Tensor, window: int | None = None, copies: int = 1) -> Tensor:
        """A band (b, h, y, x, e·w) as (b, tiles, h, window²·e, w): tiles, or by default the windows around them."""
        window = self.side + 2 * self.halo if window is None else window
        x = band.unfold(2, window, self.side).unfold(3, window, self.side).unflatten(4, (copies, -1))
        return x.permute(0, 2, 3, 1, 6, 7, 4, 5).flatten(4, 6).flatten(1, 2)

    def _untile(self, x: Tensor, batch: int) -> Tensor:
        """Queries of tiles (b·tiles, h, side², w) as a band (b, h, y, x, w)."""
        x = x.unflatten(0, (batch, -1, self.columns)).unflatten(4, (self.side, self.side))
        return x.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)


class Graph(AttentionPattern):
    """Queries attend along the edges of a graph; time and memory are linear in the edges.

    Args:
        query: tokens that attend.
        context: tokens attended to.
        edges: (2, e) int64, from keys counted through as b·s to queries as b·t; those of padding are left out.
    """

    def __init__(self, query: Tokens, context: Tokens, edges: Tensor) -> None:
        super().__init__(query, context)
        for index, keep in enumerate((self.keep, query.mask)):
            if keep is not None:
                edges = edges[:, keep.reshape(-1)[edges[index]]]
        # queries in an order in which neighbours are near, so that what a chunk of edges reads stays in the cache
        self.order = spatial_order(query.positions.expand(*query.features[0].shape[1:3], 2))
        self.rank = self.order.argsort()
        self.edges = edges[:, self.rank[edges[1]].argsort(stable=True)]
        self.shape = query.features[0].shape[1:3]
        ends = self._ends()
        gaps = (ends[0] - ends[1]).norm(dim=-1)
        self.distance = float(gaps.max()) if gaps.numel() else 0.0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        copies = k.shape[2] // max(1, self.x_key.shape[1])
        edges, logits = torch.stack([self.edges[0], self.rank[self.edges[1]]]), self._edge_bias(bias, q.shape[1])
        if copies > 1:
            keys = edges[:1, :, None] * copies + torch.arange(copies, device=edges.device)
            edges = torch.stack([keys.flatten(), edges[1].repeat_interleave(copies)])
            logits = None if logits is None else logits.repeat_interleave(copies, 0)
        dtype = torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.float32)
        q, k, value = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (q, k, v))
        out = attend_edges(q[self.order], k, value, scale, edges, None if logits is None else logits.to(dtype))
        return out[self.rank].unflatten(0, self.shape).transpose(1, 2).to(v.dtype)

    def allowed(self) -> Tensor:
        b, t = self.shape
        pairs = torch.zeros(b * t, self.x_key.shape[1], dtype=torch.bool, device=self.x_key.device)
        pairs[self.edges[1], self.edges[0] % max(1, self.x_key.shape[1])] = True
        return pairs.view(b, 1, t, -1)

    def reached(self) -> Tensor:
        reached = torch.zeros(self.shape, dtype=torch.bool, device=self.x_key.device)
        reached.view(-1)[self.edges[1]] = True
        return reached

    def _edge_bias(self, bias: Bias, heads: int) -> Tensor | None:
        """Bias and weights of the keys as logits (e, h)."""
        query, key = self._ends()
        logits = bias(query[:, None], key[:, None])
        of_keys = None if self.log_weight is None else self.log_weight.reshape(-1)[self.edges[0], None, None, None]
        logits = _add(logits, of_keys)
        return None if logits is None else logits.expand(-1, heads, 1, 1)[..., 0, 0]

    def _ends(self) -> tuple[Tensor, Tensor]:
        """Positions (e, 2) of the queries and keys of the edges."""
        query, key = (x.expand(self.shape[0], -1, -1).flatten(0, 1) for x in (self.x_query, self.x_key))
        return query[self.edges[1]], key[self.edges[0]]


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _repeat(part: Tensor | None, copies: int) -> Tensor | None:
    """Terms of logits (…, s or 1) for several keys at each token."""
    return part if part is None or part.shape[-1] == 1 else part.repeat_interleave(copies, -1)
