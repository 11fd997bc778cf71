"""Which keys each query attends to: all of them, those of a disc on a grid, or those of a graph."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from escnn_attn.domains import grid_positions
from escnn_attn.edges import attend_edges
from escnn_attn.functional import attend, attention_weights, distances
from escnn_attn.tokens import Tokens

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
        disc = distances(query, key)[0] <= self.radius
        return self._window(exists[:, None, :, None])[..., 0][:, :, :, None] & disc

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        logits = bias(*self._tile_positions())
        logits = None if logits is None else logits[:, None]
        if self.log_weight is not None:
            logits = _add(logits, self._window(self.log_weight[:, None, :, None])[..., 0][:, :, :, None])
        batch, copies = q.shape[0], k.shape[2] // (self.height * self.width)
        terms = (_repeat(part, copies) for part in (self.near, logits))
        keep, logits = (
            t if t is None else t.expand(batch, self.rows * self.columns, *t.shape[2:]).flatten(0, 1) for t in terms
        )
        key, value = (self._window(x, copies).flatten(0, 1) for x in (k, v))
        return self._gather(attend(self._tile(q).flatten(0, 1), key, value, scale, keep, logits), batch)

    def allowed(self) -> Tensor:
        disc = (distances(self.x_query, self.x_key) <= self.radius)[:, None]
        return disc if self.keep is None else disc & self.keep[:, None, None]

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        any_key = self.near.any(dim=-1)[..., None]
        return self._gather(any_key.flatten(0, 1), any_key.shape[0])[:, 0, :, 0]

    def _tile_positions(self) -> tuple[Tensor, Tensor]:
        """Positions (1, t, 2) of the queries of any tile and (1, s, 2) of the keys of its window."""
        window = self.side + 2 * self.halo
        query, key = (grid_positions(n, n).to(self.x_key) for n in (self.side, window))
        return query, key

    def _tile(self, x: Tensor) -> Tensor:
        """Queries (b, h, t, w) to (b, tiles, h, side², w), with zeros beyond the grid."""
        x = x.unflatten(2, (self.height, self.width))
        x = F.pad(x, (0, 0, 0, self.columns * self.side - self.width, 0, self.rows * self.side - self.height))
        x = x.unflatten(3, (self.columns, self.side)).unflatten(2, (self.rows, self.side))
        return x.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5).flatten(1, 2)

    def _gather(self, x: Tensor, batch: int) -> Tensor:
        """The inverse of `_tile`, from (b·tiles, h, side², w)."""
        x = x.unflatten(0, (batch, self.rows, self.columns)).unflatten(4, (self.side, self.side))
        x = x.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
        return x[:, :, : self.height, : self.width].flatten(2, 3)

    def _window(self, x: Tensor, copies: int = 1) -> Tensor:
        """Keys (b, h, s·e, w) to (b, tiles, h, keys of a window·e, w), with zeros beyond the grid."""
        x = x.unflatten(2, (self.height, self.width, copies))
        right, below = self.columns * self.side - self.width, self.rows * self.side - self.height
        x = F.pad(x, (0, 0, 0, 0, self.halo, self.halo + right, self.halo, self.halo + below))
        window = self.side + 2 * self.halo
        x = x.unfold(2, window, self.side).unfold(3, window, self.side)
        return x.permute(0, 2, 3, 1, 6, 7, 4, 5).flatten(4, 6).flatten(1, 2)


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
        self.edges = edges[:, edges[1].argsort(stable=True)]
        self.shape = query.features[0].shape[1:3]
        ends = self._ends()
        gaps = (ends[0] - ends[1]).norm(dim=-1)
        self.distance = float(gaps.max()) if gaps.numel() else 0.0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        copies = k.shape[2] // max(1, self.x_key.shape[1])
        edges, logits = self.edges, self._edge_bias(bias, q.shape[1])
        if copies > 1:
            keys = edges[:1, :, None] * copies + torch.arange(copies, device=edges.device)
            edges = torch.stack([keys.flatten(), edges[1].repeat_interleave(copies)])
            logits = None if logits is None else logits.repeat_interleave(copies, 0)
        dtype = torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.float32)
        q, k, value = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (q, k, v))
        out = attend_edges(q, k, value, scale, edges, None if logits is None else logits.to(dtype))
        return out.unflatten(0, self.shape).transpose(1, 2).to(v.dtype)

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
