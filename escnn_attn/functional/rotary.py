"""Rotation of channel pairs, read as complex numbers, by the phases of plane waves."""

from typing import Any

import torch
from torch import Tensor

from escnn_attn.functional.autograd import Gradients, batched
from escnn_attn.modes import plain_operations


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
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        cos, sin = ctx.saved_tensors
        turn = _turned if batched(grads) else rotate_pairs
        return turn(grads[0], cos, -sin), None, None


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
        return _turned(wide_x, cos, sin).to(x.dtype)
    return RotatePairs.apply(wide_x, cos, sin).to(x.dtype)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    re, im = x.chunk(2, dim=-1)
    return torch.cat([re * cos - im * sin, re * sin + im * cos], dim=-1)


def phases(x: Tensor, waves: Tensor) -> Tensor:
    """Angles (b, t, …) of plane waves (…, 2) at positions (b, t, 2)."""
    # multiplied out: a matrix product would lose precision under autocast
    x, y = (part.reshape(*part.shape, *[1] * (waves.dim() - 1)) for part in x.unbind(-1))
    return x * waves[..., 0] + y * waves[..., 1]
