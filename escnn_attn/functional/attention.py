r"""The formulas of steerable attention on plain tensors.

Axes: `b` batch, `t` query token, `s` key token, `h` head, `c` channel, `r` coefficient of a function on the group, `n`
sample of the group, `d` component of an irrep, `m` copy of an irrep (multiplicity), `f` rotary frequency.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Features = tuple[Tensor, ...]


def plain_operations() -> bool:
    """Whether a compiler, or a transform of `torch.func`, runs: both need operations that they differentiate themselves."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def rms_norm(features: Features, gains: Features, eps: float) -> Features:
    r"""$x_\psi\,g_\psi / \sqrt{\tfrac1C \sum_\psi |x_\psi|^2 + \epsilon}$, with C the number of channels of a token.

    Args:
        features: one (d, b, t, m) for each irrep.
        gains: one (m,) for each irrep.
        eps: added to the mean square.
    """
    dtype = torch.promote_types(features[0].dtype, torch.float32)
    inputs = [x.to(dtype) for x in (*features, *gains)]
    normed = _rms_norm(eps, *inputs) if plain_operations() else RMSNorm.apply(eps, *inputs)
    return tuple(n.to(f.dtype) for n, f in zip(normed, features, strict=True))


def _rms_norm(eps: float, *inputs: Tensor) -> Features:
    features, gains = inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]
    scale = _inverse_norm(eps, features)
    return tuple(f * (scale * g) for f, g in zip(features, gains, strict=True))


def _inverse_norm(eps: float, features: Features) -> Tensor:
    size = sum(f.shape[0] * f.shape[-1] for f in features)
    power = torch.stack([f.square().sum(dim=(0, -1)) for f in features]).sum(dim=0)
    return torch.rsqrt(power / size + eps)[..., None]


class RMSNorm(torch.autograd.Function):
    """By hand because autograd would keep, and run through, an intermediate result for each operation and irrep."""

    @staticmethod
    def forward(ctx: Any, eps: float, *inputs: Tensor) -> Features:
        ctx.eps = eps
        ctx.save_for_backward(*inputs)
        return _rms_norm(eps, *inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a gradient of this gradient
            return None, *torch.autograd.grad(_rms_norm(ctx.eps, *inputs), inputs, grads, create_graph=True)
        features, gains = inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]
        scale = _inverse_norm(ctx.eps, features)
        products = [(f * grad).sum(dim=0) for f, grad in zip(features, grads, strict=True)]
        by_gain = [p.flatten(0, 1).mT @ scale.flatten() for p in products]
        along = torch.stack([p @ g for p, g in zip(products, gains, strict=True)]).sum(dim=0)[..., None]
        along = along * scale**3 / sum(f.shape[0] * f.shape[-1] for f in features)
        by_feature = [
            (grad * (scale * g)).addcmul_(f, along, value=-1) for f, g, grad in zip(features, gains, grads, strict=True)
        ]
        return None, *by_feature, *by_gain


class RotatePairs(torch.autograd.Function):
    r"""Multiplies pairs, read as complex numbers, by $e^{i\theta}$; its gradient is the rotation by $-\theta$.

    By hand because autograd would keep the input, which the gradient does not need, and write each half twice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        re, im = x.chunk(2, dim=-1)
        out = torch.empty_like(x)
        turned_re, turned_im = out.chunk(2, dim=-1)
        torch.mul(re, cos, out=turned_re).addcmul_(im, sin, value=-1)
        torch.mul(re, sin, out=turned_im).addcmul_(im, cos)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate_pairs(grad, cos, -sin), None, None


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    r"""Multiplies pairs, read as complex numbers, by $e^{i\theta}$.

    Args:
        x: (…, 2·w), all real parts before all imaginary parts.
        cos: broadcastable to (…, w), float32 or float64 whatever x is; no gradient flows to the angles.
        sin: broadcastable to (…, w).
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    wide_x, cos, sin = x.to(wide), cos.to(wide), sin.to(wide)
    if plain_operations():
        re, im = wide_x.chunk(2, dim=-1)
        return torch.cat([re * cos - im * sin, re * sin + im * cos], dim=-1).to(x.dtype)
    return RotatePairs.apply(wide_x, cos, sin).to(x.dtype)


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
        return F.scaled_dot_product_attention(
            q.to(dtype), k.to(dtype), v.to(dtype), attn_mask=logit_mask(keep, bias, dtype), scale=scale
        )


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
    return (x[:, :, None] - y[:, None]).norm(dim=-1)


def logit_mask(keep: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Kept keys and bias as the `attn_mask` of torch's attention, expanded no further than they are."""
    if keep is not None:
        keep = keep | ~keep.any(dim=-1, keepdim=True)  # a softmax over nothing would be NaN
    if bias is None:
        return keep
    return bias.to(dtype) if keep is None else bias.to(dtype).masked_fill(~keep, float("-inf"))


def invariants(features: Features, trivial: list[bool]) -> Tensor:
    """Invariants (b, t, copies) of features: trivial copies themselves, and the norms of the others.

    Norms are smoothed below 1e-6, so that their gradient at zero is zero.
    """
    pairs = list(zip(features, trivial, strict=True))
    wide = torch.promote_types(features[0].dtype, torch.float32)  # 1e-12 is zero in half precision
    norms = [f[0] if t else (f.to(wide).square().sum(dim=0) + 1e-12).sqrt().to(f.dtype) for f, t in pairs]
    return torch.cat(norms, dim=-1)


def token_mean(x: Tensor, mask: Tensor | None, weights: Tensor | None) -> Tensor:
    """Mean of (b, t, c) over the tokens of each sample, weighted where there are weights; zero where a sample has none."""
    if mask is None and weights is None:
        return x.sum(dim=1) / max(1, x.shape[1])
    share = x.new_ones(x.shape[:2]) if weights is None else weights.to(x.dtype).expand(x.shape[:2])
    if mask is not None:
        share = share * mask
    total = share.sum(dim=1, keepdim=True)
    return torch.einsum("btc,bt->bc", x, share / total.where(total > 0, 1))
