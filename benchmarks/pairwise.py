"""Rotary attention by explicit pairwise steerable kernels, a reference for the fused form."""

from escnn_attn import RotaryEmbedding, SteerableSelfAttention, Tokens
from escnn_attn.nn.position._rotation import GOLDEN_ANGLE

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import jv
from torch import Tensor


def pairwise_attention(module: SteerableSelfAttention, tokens: Tokens) -> Tokens:
    r"""Computes self-attention on SO(2) with a steerable kernel per pair of tokens: time and memory grow with tokens².

    In circular harmonics the rotary logit is $\mathrm{Re} \sum_{m,m'} \bar q_m\,\kappa_{m-m'}(x_j - x_i)\,k_{m'}$, with
    kernels $\kappa_n(x) = i^n J_n(|w||x|)\,e^{in(\alpha - \varphi)}$, $\varphi$ the angle of x and $\alpha$ that of w
    (Jacobi–Anger), and values are rotated likewise. Parameters are those of `module`, and so is the result up to its tolerance.

    Args:
        module: with rotary positions, on SO(2).
        tokens: at the same positions in all samples.
    """
    embedding = module.position
    assert isinstance(embedding, RotaryEmbedding)
    limit, pairs = embedding.max_frequency, module.heads.channels // 2
    coefficients = module.project_in(tokens.features)[0].unflatten(-1, (3, module.num_heads, 2, pairs))
    q, k, v = (torch.complex(*part) for part in coefficients.permute(3, 5, 0, 4, 6, 1, 2))  # b h f t r
    basis = _harmonics(limit).to(q)
    q, k, v = q @ basis.mT, k @ basis.mT, v @ basis.mT  # coefficients of e^{img}, m = -limit … limit
    count = len(embedding.heads_per_group)
    by_wave = [_kernels(tokens.domain.positions[0], limit, w, index) for index, w in enumerate(embedding.wavenumbers)]
    size = len(by_wave) // count
    kernels = [_of_heads(by_wave[i::size], embedding.heads_per_group) for i in range(size)]
    kernels += [{0: torch.ones((), dtype=q.dtype)}] * (pairs - len(kernels))  # of unrotated channels
    logits, size = torch.zeros(()), 2 * limit + 1
    for f in range(pairs):
        for n, kernel in kernels[f].items():
            a, b = slice(max(0, n), size + min(0, n)), slice(max(0, -n), size - max(0, n))  # m and m' = m - n
            logits = logits + (kernel * (q[:, :, f, :, a].conj() @ k[:, :, f, :, b].mT)).real
    weights = (logits * module.heads.scale).softmax(dim=-1)
    rotated = []
    for f in range(pairs):
        padded = F.pad(v[:, :, f], (2 * limit, 2 * limit))
        by_order = {n: (weights * kernel) @ padded for n, kernel in kernels[f].items()}
        shifted = [x[..., 2 * limit - n : 2 * limit - n + size] for n, x in by_order.items()]
        rotated.append(torch.stack(shifted).sum(dim=0))
    out = torch.stack(rotated)  # f b h t m
    functions = out.permute(1, 3, 4, 2, 0) * module.gain[:, None]  # b t m h f
    real = torch.einsum("mr,btmhf->btrhf", basis.conj(), functions)
    features = module.project_out((torch.stack([real.real, real.imag], dim=4).flatten(3),))
    return tokens.with_features(features)


def _of_heads(kernels: list[dict[int, Tensor]], group_sizes: list[int]) -> dict[int, Tensor]:
    """Kernels (h, t, t) of all heads, from the kernels (t, t) of head groups and their numbers of heads."""
    by_head = [kernel for kernel, size in zip(kernels, group_sizes, strict=True) for _ in range(size)]
    return {n: torch.stack([kernel[n] for kernel in by_head]) for n in by_head[0]}


def _harmonics(limit: int) -> Tensor:
    """The unitary matrix from escnn's real coefficients of functions on SO(2) to those of e^{img}, (2L+1, 2L+1)."""
    matrix = torch.zeros(2 * limit + 1, 2 * limit + 1, dtype=torch.complex128)
    matrix[limit, 0] = 1
    for m in range(1, limit + 1):
        for sign in (1, -1):
            matrix[limit + sign * m, 2 * m - 1] = 0.5**0.5
            matrix[limit + sign * m, 2 * m] = -sign * 1j * 0.5**0.5
    return matrix


def _kernels(positions: Tensor, limit: int, wavenumbers: float, index: int) -> dict[int, Tensor]:
    r"""$\kappa_n(x_j - x_i)$ for n = -2L … 2L, each (t, t)."""
    x = positions.double().numpy()
    offset = x[None] - x[:, None]
    distance, angle = np.hypot(offset[..., 0], offset[..., 1]), np.arctan2(offset[..., 1], offset[..., 0])
    rotation = GOLDEN_ANGLE * index - angle
    orders = range(-2 * limit, 2 * limit + 1)
    dtype = torch.promote_types(positions.dtype, torch.complex64)
    return {n: torch.from_numpy(1j**n * jv(n, wavenumbers * distance) * np.exp(1j * n * rotation)).to(dtype) for n in orders}
