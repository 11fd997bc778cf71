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
    """Mean of (b, t, c) over the tokens of each sample, weighted where there are weights; zero where a sample has none."""
    if mask is None and weights is None:
        return x.sum(dim=1) / max(1, x.shape[1])
    share = x.new_ones(x.shape[:2]) if weights is None else weights.to(x.dtype).expand(x.shape[:2])
    if mask is not None:
        share = share * mask
    total = share.sum(dim=1, keepdim=True)
    return torch.einsum("btc,bt->bc", x, share / total.where(total > 0, 1))
