"""Invariants of isotypic features, and their mean over tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from escnn_attn.fields import Features


def invariants(features: Features, trivial: Sequence[bool]) -> Tensor:
    """Invariants (b, t, copies) of features: trivial copies themselves, and the norms of the others.

    Norms are smoothed below 1e-6, so that their gradient at zero is zero.
    """
    pairs = list(zip(features, trivial, strict=True))
    wide = torch.promote_types(features[0].dtype, torch.float32)  # 1e-12 is zero in half precision
    norms = [f[0] if t else (f.to(wide).square().sum(dim=0) + 1e-12).sqrt().to(f.dtype) for f, t in pairs]
    return torch.cat(norms, dim=-1)


def token_mean(x: Tensor, mask: Tensor | None, weights: Tensor | None) -> Tensor:
    """Mean of (b, t, c) over the tokens of each sample, weighted where there are weights; zero where a sample has none.

    Sums are in float32 at least, and weights may be of any scale.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    if mask is None and weights is None:
        return (x.sum(dim=1, dtype=wide) / max(1, x.shape[1])).to(x.dtype)
    share = torch.ones_like(x[..., 0], dtype=wide) if weights is None else _scaled(weights).to(wide).expand(x.shape[:2])
    if mask is not None:
        share = share * mask
    total = share.sum(dim=1, keepdim=True)
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("btc,bt->bc", x.to(wide), share / total.where(total > 0, 1)).to(x.dtype)


def _scaled(weights: Tensor) -> Tensor:
    """Weights (b, t) relative to the largest of each sample, so that their sum is finite."""
    if not weights.shape[1]:
        return weights
    largest = weights.detach().amax(dim=1, keepdim=True)
    return weights / largest.where(largest > 0, 1)
