"""Attention over the pairs of tokens that a neighborhood or a graph allows (for the discs of a grid see `_discs` and `_tiles`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from escnn_attn.functional import attend, attend_edges, attention_weights, spatial_order
from escnn_attn.functional.edges import Chunks, chunks
from escnn_attn.modes import plain_operations, readable
from escnn_attn.tokens import Domain

#: logits (b or 1, h or 1, t, s) of positions (b or 1, t, 2) and (b or 1, s, 2), or None: `Encoding.bias`
BiasFn = Callable[[Tensor, Tensor], Tensor | None]
Terms = TypeVar("Terms", bound=Tensor | None)


class AttentionPattern(ABC):
    """Attention from the tokens of one domain to those of another, over the pairs that a subclass chooses.

    Args:
        query: domain of the tokens that attend.
        key: domain of the tokens attended to, with positions about the same center; padding and weight zero are left out.

    Attributes:
        distance: largest distance between a query and a key of it, a tensor where it cannot be read; None for that of all tokens.
    """

    distance: float | Tensor | None = None

    def __init__(self, query: Domain, key: Domain) -> None:
        # not the domains: they cache the pattern, and would be freed by the garbage collector alone
        self.x_query, self.x_key = query.positions, key.positions
        self.keep, self.log_weights = key.attended(), None
        if key.quadrature_weights is not None:
            self.log_weights = key.quadrature_weights.where(key.quadrature_weights > 0, 1).log()

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        """Weighted sums of the values, (b, h, t, width); finite, but arbitrary, for queries that are not `reached`.

        Args:
            q: (b, h, t, width).
            k: (b, h, s·copies, width).
            v: (b, h, s·copies, width).
            scale: factor of the logits.
            bias: gives logits of positions.
            copies: number of keys in a row at each token.
        """

    @abstractmethod
    def allowed(self) -> Tensor | None:
        """The pairs, bool and broadcastable to (b, 1, t, s), None for all; for inspection: this stores tokens²."""

    @abstractmethod
    def reached(self) -> Tensor | None:
        """Queries that have a key, bool (b, t); None where all have."""

    def weights(self, q: Tensor, k: Tensor, scale: float, bias: BiasFn) -> Tensor:
        """The attention weights (b, h, t, s), for inspection: this stores tokens²."""
        return attention_weights(q, k, scale, self.allowed(), self.key_logits(bias, self.x_query))

    def of_reached(self, x: Tensor) -> Tensor:
        """What `attend` returns, zero for queries that have no key."""
        reached = self.reached()
        return x if reached is None else x.masked_fill(~reached[:, None, :, None], 0)

    def key_logits(self, bias: BiasFn, positions: Tensor) -> Tensor | None:
        """Bias and log-weights of all keys as logits (b or 1, h or 1, t or 1, s) of queries at given positions."""
        of_keys = None if self.log_weights is None else self.log_weights[:, None, None]
        return add_terms(bias(positions, self.x_key), of_keys)


class AllPairs(AttentionPattern):
    """Every token attends to every token of its sample, in one fused call."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        keep, logits = self.allowed(), self.key_logits(bias, self.x_query)
        return attend(q, k, v, scale, repeat_keys(keep, copies), repeat_keys(logits, copies))

    def allowed(self) -> Tensor | None:
        return None if self.keep is None else self.keep[:, None, None]

    def reached(self) -> Tensor | None:
        if self.x_key.shape[1] == 0:
            return self.x_query.new_zeros(self.x_query.shape[:2], dtype=torch.bool)
        return None if self.keep is None else self.keep.any(dim=1, keepdim=True).expand(-1, self.x_query.shape[1])


class MaskedPairs(AttentionPattern):
    """Pairs by a mask over all keys, in one fused call: for compilers, which do not look at edges.

    Args:
        query: domain of the tokens that attend.
        key: domain of the tokens attended to.
        pairs: bool (b or 1, t, s).
        distance: largest distance of a pair, a tensor where it cannot be read.
    """

    def __init__(self, query: Domain, key: Domain, pairs: Tensor, distance: float | Tensor) -> None:
        super().__init__(query, key)
        self.pairs, self.distance = pairs[:, None], distance

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        logits = self.key_logits(bias, self.x_query)
        return attend(q, k, v, scale, repeat_keys(self.allowed(), copies), repeat_keys(logits, copies))

    def allowed(self) -> Tensor:
        return self.pairs if self.keep is None else self.pairs & self.keep[:, None, None]

    def reached(self) -> Tensor:
        return self.allowed().any(dim=-1)[:, 0]


class Graph(AttentionPattern):
    """Queries attend along the edges of a graph; time and memory are linear in the edges.

    Args:
        query: domain of the tokens that attend.
        key: domain of the tokens attended to.
        edges: (2, e) int64, from keys numbered through as b·s to queries as b·t; those of padding are left out.
    """

    def __init__(self, query: Domain, key: Domain, edges: Tensor) -> None:
        super().__init__(query, key)
        with torch.inference_mode(False):  # a later training step on the same tokens must be able to use it
            self._arrange(query, edges)

    def _arrange(self, query: Domain, edges: Tensor) -> None:
        for index, keep in enumerate((self.keep, query.mask)):
            if keep is not None:
                edges = edges[:, keep.reshape(-1)[edges[index]]]
        self.shape = (query.batch_size, query.num_tokens)
        # queries in an order in which neighbors are near, so that the keys of a chunk of edges stay in the cache
        positions = query.positions.expand(*self.shape, 2)
        fixed = readable(positions)
        places = self.shape[0] * self.shape[1]
        self.order = spatial_order(positions) if fixed else torch.arange(places, device=positions.device)
        self.rank = self.order.argsort()
        ranked = self.rank[edges[1]]
        by_query = ranked.argsort(stable=True)
        #: keys, and ranks of queries in that order, which ascend
        self.edges = torch.stack([edges[0][by_query], ranked[by_query]])
        self._parts: dict[int, Chunks] = {}
        if fixed:
            x, y = self._end_positions()
            lengths = (x - y).detach().norm(dim=-1)
            self.distance = float(lengths.max()) if lengths.numel() else 0.0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        edges, logits, parts = self.edges, self._edge_logits(bias, q.shape[1]), self._chunks(copies)
        if copies > 1:
            keys = edges[:1, :, None] * copies + torch.arange(copies, device=edges.device)
            edges = torch.stack([keys.flatten(), edges[1].repeat_interleave(copies)])
            logits = None if logits is None else logits.repeat_interleave(copies, 0)
        dtype = torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.float32)
        q, k, value = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (q, k, v))
        out = attend_edges(q[self.order], k, value, scale, edges, None if logits is None else logits.to(dtype), parts)
        return out[self.rank].unflatten(0, self.shape).transpose(1, 2).to(v.dtype)

    def _chunks(self, copies: int) -> Chunks | None:
        """The chunks of the edges, found once: finding them waits for the device."""
        if plain_operations():  # which take all edges at once
            return None
        if copies not in self._parts:
            self._parts[copies] = chunks(self.edges[1], copies)
        return self._parts[copies]

    def allowed(self) -> Tensor:
        b, t = self.shape
        pairs = torch.zeros(b * t, self.x_key.shape[1], dtype=torch.bool, device=self.edges.device)
        pairs[self.order[self.edges[1]], self.edges[0] % max(1, self.x_key.shape[1])] = True
        return pairs.view(b, 1, t, -1)

    def reached(self) -> Tensor:
        reached = torch.zeros(self.shape, dtype=torch.bool, device=self.edges.device)
        reached.view(-1)[self.order[self.edges[1]]] = True
        return reached

    def _edge_logits(self, bias: BiasFn, num_heads: int) -> Tensor | None:
        """Bias and log-weights of the keys as logits (e, h)."""
        query, key = self._end_positions()
        of_keys = None if self.log_weights is None else self.log_weights.reshape(-1)[self.edges[0], None, None, None]
        logits = add_terms(bias(query[:, None], key[:, None]), of_keys)
        return None if logits is None else logits.expand(self.edges.shape[1], num_heads, 1, 1)[..., 0, 0]

    def _end_positions(self) -> tuple[Tensor, Tensor]:
        """Positions (e, 2) of the queries and keys of the edges."""
        query, key = (x.expand(self.shape[0], -1, -1).flatten(0, 1) for x in (self.x_query, self.x_key))
        return query[self.order[self.edges[1]]], key[self.edges[0]]


def add_terms(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two terms, either of which may be missing."""
    return b if a is None else a if b is None else a + b


def repeat_keys(part: Terms, copies: int) -> Terms:
    """Terms of logits (…, s or 1) for several keys at each token."""
    if part is None or copies == 1 or part.shape[-1] == 1:  # not even a copy of large masks
        return part
    return part.repeat_interleave(copies, -1)  # pyright: ignore[reportReturnType]
