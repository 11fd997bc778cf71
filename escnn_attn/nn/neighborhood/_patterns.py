"""Which keys each query attends to: all of them, or those of a graph (for the discs of a grid see `tiles`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from escnn_attn.functional.attention import attend, attention_weights
from escnn_attn.functional.edges import attend_edges, spatial_order
from escnn_attn.tokens.tokens import Tokens

Bias = Callable[[Tensor, Tensor], Tensor | None]


class AttentionPattern(ABC):
    """Attention of the tokens of one call to those of a context, over the pairs that a subclass chooses.

    Args:
        query: tokens that attend.
        context: tokens attended to, with positions about the same center; padding, and weight zero, is left out.

    Attributes:
        distance: largest distance between a query and a key of it; None for that of all tokens.
    """

    distance: float | None = None

    def __init__(self, query: Tokens, context: Tokens) -> None:
        self.x_query, self.x_key = query.positions, context.positions
        self.keep, self.log_weight = attended(context), None
        if context.quadrature_weights is not None:
            self.log_weight = context.quadrature_weights.where(context.quadrature_weights > 0, 1).log()

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
        return attention_weights(q, k, scale, self.allowed(), self.dense_bias(bias, self.x_query))

    def dense_bias(self, bias: Bias, x_query: Tensor) -> Tensor | None:
        """Bias and weights of all keys as logits (b or 1, h or 1, t or 1, s) of queries at given positions."""
        of_keys = None if self.log_weight is None else self.log_weight[:, None, None]
        return add_terms(bias_of(bias, x_query, self.x_key), of_keys)


class AllPairs(AttentionPattern):
    """Every token attends to every token of its sample, in one fused call."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        copies = k.shape[2] // max(1, self.x_key.shape[1])
        keep, logits = (repeat_keys(part, copies) for part in (self.allowed(), self.dense_bias(bias, self.x_query)))
        return attend(q, k, v, scale, keep, logits)

    def allowed(self) -> Tensor | None:
        return None if self.keep is None else self.keep[:, None, None]

    def reached(self) -> Tensor | None:
        if self.x_key.shape[1] == 0:
            return self.x_query.new_zeros(self.x_query.shape[:2], dtype=torch.bool)
        return None if self.keep is None else self.keep.any(dim=1, keepdim=True).expand(-1, self.x_query.shape[1])


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
        # queries in an order in which neighbors are near, so that what a chunk of edges reads stays in the cache
        self.order = spatial_order(query.positions.expand(*query.features[0].shape[1:3], 2))
        self.rank = self.order.argsort()
        ranked = self.rank[edges[1]]
        by_query = ranked.argsort(stable=True)
        #: keys, and ranks of queries in that order, which ascend
        self.edges = torch.stack([edges[0][by_query], ranked[by_query]])
        self.shape = query.features[0].shape[1:3]
        ends = self._ends()
        gaps = (ends[0] - ends[1]).detach().norm(dim=-1)
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
        out = attend_edges(q[self.order], k, value, scale, edges, None if logits is None else logits.to(dtype))
        return out[self.rank].unflatten(0, self.shape).transpose(1, 2).to(v.dtype)

    def allowed(self) -> Tensor:
        b, t = self.shape
        pairs = torch.zeros(b * t, self.x_key.shape[1], dtype=torch.bool, device=self.x_key.device)
        pairs[self.order[self.edges[1]], self.edges[0] % max(1, self.x_key.shape[1])] = True
        return pairs.view(b, 1, t, -1)

    def reached(self) -> Tensor:
        reached = torch.zeros(self.shape, dtype=torch.bool, device=self.x_key.device)
        reached.view(-1)[self.order[self.edges[1]]] = True
        return reached

    def _edge_bias(self, bias: Bias, heads: int) -> Tensor | None:
        """Bias and weights of the keys as logits (e, h)."""
        query, key = self._ends()
        logits = bias_of(bias, query[:, None], key[:, None])
        of_keys = None if self.log_weight is None else self.log_weight.reshape(-1)[self.edges[0], None, None, None]
        logits = add_terms(logits, of_keys)
        return None if logits is None else logits.expand(self.edges.shape[1], heads, 1, 1)[..., 0, 0]

    def _ends(self) -> tuple[Tensor, Tensor]:
        """Positions (e, 2) of the queries and keys of the edges."""
        query, key = (x.expand(self.shape[0], -1, -1).flatten(0, 1) for x in (self.x_query, self.x_key))
        return query[self.order[self.edges[1]]], key[self.edges[0]]


def attended(context: Tokens) -> Tensor | None:
    """Tokens of a context that are attended to, bool (b, s): neither padding nor of weight zero; None for all."""
    if context.quadrature_weights is None:
        return context.mask
    positive = context.quadrature_weights > 0
    return positive if context.mask is None else positive & context.mask


def bias_of(bias: Bias, x_query: Tensor, x_key: Tensor) -> Tensor | None:
    """What a bias gives, with all four dimensions (b, h, t, s); a ValueError if samples could be taken for heads."""
    logits = bias(x_query, x_key)
    if logits is None:
        return None
    if x_query.shape[0] > 1 and logits.dim() < 4 and max(logits.shape[-2:], default=1) > 1:
        raise ValueError(f"expected a bias (b, h or 1, t, s) of {x_query.shape[0]} samples, got {tuple(logits.shape)}")
    return logits.reshape((1,) * (4 - logits.dim()) + logits.shape)


def add_terms(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def repeat_keys(part: Tensor | None, copies: int) -> Tensor | None:
    """Terms of logits (…, s or 1) for several keys at each token."""
    return part if part is None or part.shape[-1] == 1 else part.repeat_interleave(copies, -1)
