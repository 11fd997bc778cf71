r"""Attention over the edges of a graph: memory and time linear in the edges, forward and backward.

Axes: `e` edge, `t` query, `s` key, `h` head, `w` width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from escnn_attn.functional.autograd import Gradients, differentiate, plain_gradients
from escnn_attn.modes import plain_operations

CHUNK = 8192


#: slices of edges sorted by query, and of the queries that they go to
Chunks = Sequence[tuple[slice, slice]]


def attend_edges(
    q: Tensor, k: Tensor, v: Tensor, scale: float, edges: Tensor, bias: Tensor | None = None, parts: Chunks | None = None
) -> Tensor:
    r"""$\text{out}_t = \sum_{e: s \to t} \mathrm{softmax}_e(q_t \cdot k_s \cdot \text{scale} + \text{bias}_e)\, v_s$.

    Args:
        q: (t, h, w).
        k: (s, h, w).
        v: (s, h, w).
        scale: factor of the logits.
        edges: (2, e) int64, keys and queries, sorted by query.
        bias: (e, h) added to the logits.
        parts: the `chunks` of the edges, where they are known: finding them waits for the device.

    Returns:
        (t, h, w), zero for queries without an edge.
    """
    if plain_operations():
        return edge_formula(q, k, v, bias, scale, edges)[0]
    return EdgeAttention.apply(q, k, v, bias, scale, edges, chunks(edges[1]) if parts is None else parts)


def edge_formula(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, edges: Tensor) -> tuple[Tensor, Tensor]:
    """`attend_edges` as one differentiable expression, which stores edges × width; and its weights (e, h)."""
    key, query = edges
    logits = (q[query] * k[key]).sum(-1) * scale
    if bias is not None:
        logits = logits + bias
    rows = query[:, None].expand_as(logits)
    highest = torch.full_like(q[..., 0], float("-inf")).scatter_reduce(0, rows, logits.detach(), "amax")
    highest = highest.masked_fill(highest == float("-inf"), 0)  # a bias may forbid all edges of a query
    powers = (logits - highest[query]).exp()
    total = torch.zeros_like(highest).index_add(0, query, powers)
    weights = powers / total.where(total > 0, 1)[query]
    return torch.zeros_like(q).index_add(0, query, weights[..., None] * v[key]), weights


class EdgeAttention(torch.autograd.Function):
    """`attend_edges`, a chunk of queries at a time; of the edges only the weights are kept for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, edges: Tensor, parts: Chunks
    ) -> Tensor:
        out, weights = torch.zeros_like(q), q.new_empty(edges.shape[1], q.shape[1])
        for part, rows in parts:
            local = torch.stack([edges[0, part], edges[1, part] - rows.start])
            part_bias = None if bias is None else bias[part]
            out[rows], weights[part] = edge_formula(q[rows], k, v, part_bias, scale, local)
        ctx.save_for_backward(q, k, v, bias, edges, weights)
        ctx.scale, ctx.parts = scale, parts
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        (grad,) = grads
        q, k, v, bias, edges, weights = ctx.saved_tensors
        if plain_gradients(grads):
            found = differentiate(
                lambda q, k, v, bias: edge_formula(q, k, v, bias, ctx.scale, edges)[0],
                (q, k, v, bias),
                ctx.needs_input_grad[:4],
                grads,
            )
            return *found, None, None, None
        grad_q, grad_k, grad_v, grad_logits = map(torch.zeros_like, (q, k, v, weights))
        for part, rows in ctx.parts:
            key, query = edges[:, part]
            weight, upstream = weights[part], grad[query]
            grad_v.index_add_(0, key, weight[..., None] * upstream)
            slope = (upstream * v[key]).sum(-1) * weight
            mean = torch.zeros_like(q[rows, :, 0]).index_add_(0, query - rows.start, slope)
            grad_logits[part] = slope - weight * mean[query - rows.start]
            step = ctx.scale * grad_logits[part, :, None]
            grad_q.index_add_(0, query, step * k[key])
            grad_k.index_add_(0, key, step * q[query])
        return grad_q, grad_k, grad_v, grad_logits if bias is not None else None, None, None, None


def chunks(query: Tensor, copies: int = 1) -> Chunks:
    """Slices of edges sorted by query, each `copies` times in a row, and of their queries: of at most `CHUNK` edges, or one query."""
    queries = query.cpu().numpy()
    found, start, size = [], 0, max(1, CHUNK // copies)
    while start < len(queries):
        end = min(start + size, len(queries))
        if end < len(queries):  # edges of one query stay together
            first = int(np.searchsorted(queries, queries[end]))
            end = first if first > start else int(np.searchsorted(queries, queries[start], side="right"))
        rows = slice(int(queries[start]), int(queries[end - 1]) + 1)
        found.append((slice(start * copies, end * copies), rows))
        start = end
    return found


def spatial_order(x: Tensor) -> Tensor:
    """Indices that put positions (b, t, 2), counted through as b·t, in the order of a Z-order curve, sample after sample.

    Examples:
        >>> spatial_order(torch.tensor([[[0.0, 0.0], [9.0, 9.0], [1.0, 0.0], [9.0, 8.0]]])).tolist()
        [0, 2, 3, 1]
    """
    if not x.numel():
        return torch.arange(0, device=x.device)
    x = x.detach() - x.detach().amin(dim=(0, 1))
    cell = (x / x.max().clamp(min=torch.finfo(x.dtype).tiny) * (2**15 - 1)).long()
    code = torch.arange(x.shape[0], device=x.device)[:, None] << 30
    for bit in range(15):  # the bits of both coordinates in turn
        code = code | ((cell >> bit & 1) << (2 * bit + torch.arange(2, device=x.device))).sum(dim=-1)
    return code.flatten().argsort(stable=True)
