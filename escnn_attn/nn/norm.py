"""Equivariant normalization: of each token, and of each field over a batch."""

import numpy as np
import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn.arguments import require_positive, require_share
from escnn_attn.fields import ExactBuffer
from escnn_attn.functional import rms_norm
from escnn_attn.nn.modules import PlanarModule, TokenModule
from escnn_attn.tokens import Tokens, require_input


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


class SteerableBatchNorm(PlanarModule):
    r"""Divides each field by its root mean square over a batch, about its invariant mean, with a learned gain and bias.

    $y = \gamma\,(x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta$, with $\mu$ the mean over samples and tokens of the invariant components of a field,
    $\sigma^2$ the mean of $|x - \mu|^2$ (in irreps coordinates) over samples, tokens and components, and $\beta$ of invariant components alone: in training those of the batch, in
    eval mode running averages. It takes the place of `escnn.nn.IIDBatchNorm2d`, and like it takes no gradient of the statistics; it reads nothing from
    the device, and its $\sigma^2$ does not change if each sample turns by an angle of its own.

    Args:
        in_type: field type of input and output.
        eps: added to the mean square.
        momentum: share of a batch in the running averages, above 0 and at most 1.

    Shape:
        (b, c, height, width) or (points, c), unchanged.

    Raises:
        TypeError: if the type is not one on the plane, or `eps` or `momentum` no number.
        ValueError: if `eps` is not positive and finite, or `momentum` no such share.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableBatchNorm, fourier_type, planar_gspace
        >>> norm = SteerableBatchNorm(fourier_type(planar_gspace("SO2"), 2, 1))
        >>> norm(norm.in_type(3 + 7 * torch.randn(4, 6, 9, 9))).tensor.square().mean().round(decimals=2).item()
        1.0
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, in_type: FieldType, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(in_type, in_type)
        self.eps, self.momentum = require_positive("eps", eps), require_share("momentum", momentum, most=True)
        sizes = [rho.size for rho in in_type.representations]
        self.field = ExactBuffer(np.repeat(np.arange(len(sizes)), sizes))
        self.components = ExactBuffer(sizes)
        basis = _block_diagonal([rho.change_of_basis for rho in in_type.representations])
        inverse = _block_diagonal([rho.change_of_basis_inv for rho in in_type.representations])
        trivial = _trivial_components(in_type)
        self.invariants, self.coordinates = ExactBuffer(basis[:, trivial]), ExactBuffer(inverse[trivial])
        #: to irreps coordinates; None where they have the same lengths
        self.inverse = None if np.allclose(basis.T @ basis, np.eye(in_type.size)) else ExactBuffer(inverse)
        self.weight = nn.Parameter(torch.ones(len(sizes)))
        self.bias = nn.Parameter(torch.zeros(trivial.sum()))
        self.register_buffer("running_mean", torch.zeros(trivial.sum()))
        self.register_buffer("running_var", torch.ones(len(sizes)))

    def forward(self, x: GeometricTensor) -> GeometricTensor:
        x = require_input(x, self.in_type, self)
        return GeometricTensor(self.forward_grid(x.tensor), self.out_type, x.coords)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The norm on plain tensors (b, c, …)."""
        values = (x.flatten(2) if x.dim() > 2 else x[..., None]).to(torch.promote_types(x.dtype, torch.float32))
        # means in half precision would leave their rounding in what is centered
        with torch.autocast(x.device.type, enabled=False):
            return self._normalized(values).to(x.dtype).reshape(x.shape)

    def _normalized(self, values: Tensor) -> Tensor:
        """The norm on numbers (b, c, t)."""
        basis, field = self.invariants.like(values), self.field.like(values)
        measured = self.training and values.numel() > 0  # an empty batch has no statistics
        mean = self.running_mean.to(values.dtype)
        if measured:
            mean = self.coordinates.like(values) @ values.detach().mean(dim=(0, 2))
        centered = values - (basis @ mean)[:, None]
        variance = self._variance(centered.detach(), field) if measured else self.running_var.to(values.dtype)
        if measured:
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        scale = (self.weight * torch.rsqrt(variance + self.eps))[field]
        shift = basis @ self.bias.to(values.dtype)
        return torch.addcmul(shift[:, None], centered, scale[:, None])

    def _variance(self, centered: Tensor, field: Tensor) -> Tensor:
        """The mean square (fields,) over the components of each field, of (b, c, t)."""
        centered = centered if self.inverse is None else self.inverse.like(centered) @ centered
        squares = torch.linalg.vector_norm(centered, dim=2).square().mean(dim=0) / centered.shape[2]
        return squares.new_zeros(len(self.weight)).index_add(0, field, squares) / self.components.like(squares)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps:g}, momentum={self.momentum:g}"


def _block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
    ends = np.cumsum([len(block) for block in blocks])
    whole = np.zeros((ends[-1], ends[-1]))
    for block, end in zip(blocks, ends, strict=True):
        whole[end - len(block) : end, end - len(block) : end] = block
    return whole


def _trivial_components(field_type: FieldType) -> np.ndarray:
    """Which irreps coordinates (c,) of the fields of a type are trivial copies, bool."""
    irreps = (rho.group.irrep(*irrep) for rho in field_type.representations for irrep in rho.irreps)
    return np.concatenate([np.full(irrep.size, irrep.is_trivial()) for irrep in irreps])
