"""Root mean square normalization of isotypic features."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from escnn_attn.fields import Features
from escnn_attn.functional.autograd import Gradients, differentiate, plain_gradients
from escnn_attn.modes import plain_operations


def rms_norm(features: Features, gains: Features, eps: float) -> Features:
    r"""$\gamma_\psi\,x_\psi / \sqrt{\tfrac1D \sum_\psi |x_\psi|^2 + \epsilon}$, with D the number of components of a token.

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
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        inputs = ctx.saved_tensors
        if plain_gradients(grads):
            return None, *differentiate(partial(_rms_norm, ctx.eps), inputs, ctx.needs_input_grad[1:], grads)
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
