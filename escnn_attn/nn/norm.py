"""Equivariant normalization."""

import torch
from escnn.nn import FieldType
from torch import nn

from escnn_attn.arguments import require_positive
from escnn_attn.functional import rms_norm
from escnn_attn.nn.modules import TokenModule
from escnn_attn.tokens import Tokens


class SteerableRMSNorm(TokenModule):
    r"""Divides each token by the root mean square of its channels, with a learned gain for each irrep copy.

    $y_\psi = \gamma_\psi\,x_\psi / \sqrt{\tfrac1D\sum_\psi|x_\psi|^2 + \epsilon}$ in irreps coordinates, where every
    representation is orthogonal and the mean square therefore invariant (Zhang & Sennrich, 2019,
    https://arxiv.org/abs/1910.07467, for plain channels): equation (14) of docs/mathematics.md. No mean is subtracted.

    Args:
        in_type: field type of input and output.
        eps: added to the mean square.

    Shape:
        (b, c, height, width) or (points, c), unchanged.

    Raises:
        TypeError: if the type is not one on the plane, or `eps` no number.
        ValueError: if `eps` is not positive and finite.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableRMSNorm, fourier_type, planar_gspace
        >>> norm = SteerableRMSNorm(fourier_type(planar_gspace("O2"), 2, 1))
        >>> norm(norm.in_type(7 * torch.ones(1, 12, 1, 1))).tensor.square().mean().round(decimals=3).item()
        1.0
    """

    def __init__(self, in_type: FieldType, eps: float = 1e-6) -> None:
        super().__init__(in_type, in_type)
        self.eps = require_positive("eps", eps)
        self.gains = nn.ParameterList(torch.ones(m) for m in self.in_layout.irreps.multiplicities)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        return tokens.with_features(rms_norm(tokens.features, tuple(self.gains), self.eps))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps:g}"
