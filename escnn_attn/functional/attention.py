"""Softmax attention in one fused call."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from escnn_attn.functional.autograd import Gradients, differentiate, plain_gradients
from escnn_attn.modes import plain_operations

#: where kernels in half precision are up to twice as fast for head widths that are multiples of 8
ALIGNED_DEVICES = ("cuda",)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, keep: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    r"""$\mathrm{softmax}(q k^\top \cdot \text{scale} + \text{bias})\,v$ over the keys that `keep` marks, in one fused call.

    Args:
        q: (b, h, t, width).
        k: (b, h, s, width).
        v: (b, h, s, width); a width other than that of the queries would leave the fused path.
        scale: factor of the logits.
        keep: bool, broadcastable to (b, h, t, s), True for keys to attend to; the output of a query with none is arbitrary,
            but finite.
        bias: broadcastable to (b, h, t, s), added to the logits.
    """
    dtype = torch.promote_types(q.dtype, v.dtype)
    with torch.autocast(q.device.type, enabled=False):  # an embedding may need its queries and keys to stay float32
        q, k, v, mask = q.to(dtype), k.to(dtype), v.to(dtype), logit_mask(keep, bias, dtype)
        if torch._C._are_functorch_transforms_active() and mask is not None and mask.dtype != torch.bool:
            return _formula(scale, q, k, v, mask)  # in a transform torch's fused call gives no gradient to logits
        width = q.shape[-1]
        if q.device.type in ALIGNED_DEVICES and dtype in (torch.float16, torch.bfloat16):
            q, k, v = (F.pad(x, (0, -width % 8)) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    out = out if plain_operations() else FusedAttention.apply(out, q, k, v, mask, scale)
    return out if out.shape[-1] == width else out[..., :width]


class FusedAttention(torch.autograd.Function):
    """The result of a fused call, whose kernels have no second derivatives: where those are wanted, the formula has them."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.scale = scale
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        if not plain_gradients(grads):
            return grads[0], None, None, None, None, None  # through the fused call
        inputs = ctx.saved_tensors
        return None, *differentiate(partial(_formula, ctx.scale), inputs, ctx.needs_input_grad[1:5], grads), None


def _formula(scale: float, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """`attend` as one differentiable expression, which stores tokens²."""
    logits = q @ k.mT * scale
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=-1) @ v


def attention_weights(q: Tensor, k: Tensor, scale: float, keep: Tensor | None, bias: Tensor | None) -> Tensor:
    """The weights (b, h, t, s) of `attend`, for inspection: this stores tokens². Zero for queries without a key."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        logits = q.to(dtype) @ k.to(dtype).mT * scale
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    if keep is None:
        return logits.softmax(dim=-1)
    return logits.masked_fill(~keep, float("-inf")).softmax(dim=-1).masked_fill(~keep, 0)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Distances (b, t, s) between positions (b, t, 2) and (b, s, 2), without the rounding of `torch.cdist`'s products."""
    squares = (x[:, :, None] - y[:, None]).square().sum(dim=-1)
    # the norm's second derivative at zero would be NaN
    return squares.where(squares > 0, 1).sqrt().where(squares > 0, 0)


def kth_smallest(x: Tensor, k: int) -> Tensor:
    """The k-th smallest (…, 1) of the last axis, infinity where there are fewer: by operations on axes of any, also open, size."""
    return F.pad(x, (0, k), value=torch.inf).topk(k, largest=False).values[..., -1:]


def logit_mask(keep: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Kept keys and bias as the `attn_mask` of torch's attention, expanded no further than they are."""
    if keep is not None:
        keep = keep | ~keep.any(dim=-1, keepdim=True)  # a softmax over nothing would be NaN
    if bias is None:
        return keep
    return bias.to(dtype) if keep is None else bias.to(dtype).masked_fill(~keep, float("-inf"))
