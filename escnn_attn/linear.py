"""Equivariant linear maps by Schur's lemma."""

import numpy as np
import torch
from escnn.group import Group
from escnn.nn import FieldType
from torch import nn

from escnn_attn.base import TokenModule
from escnn_attn.fields import Multiplicities
from escnn_attn.functional import Features, isotypic_linear
from escnn_attn.sampling import Constant
from escnn_attn.tokens import Tokens


class IsotypicLinear(nn.Module):
    r"""Every equivariant linear map between isotypic features: the tensor-level core of `SteerableLinear`.

    $y_\psi = \sum_k (E_k x_\psi) A_k$ for each irrep $\psi$ of the input that is also in the output, with $E_k$ the
    endomorphisms of $\psi$; irreps that only the output has are zero (trivial ones: the bias).

    Args:
        group: the fibre group.
        inputs: multiplicity of each irrep of the input.
        outputs: multiplicity of each irrep of the output.
        bias: whether the trivial irreps get a bias.

    Shape:
        one (d, b, t, m) for each irrep of the input, to one (d, b, t, m') for each of the output.
    """

    def __init__(self, group: Group, inputs: Multiplicities, outputs: Multiplicities, bias: bool = True) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        self.endomorphisms = nn.ModuleList()
        #: (index in the output, index in the input) of the irreps that both have, in the order of `weights`
        self.shared = [(i, list(inputs).index(psi)) for i, psi in enumerate(outputs) if psi in inputs]
        self.dims = [group.irrep(*psi).size for psi in outputs]
        self.widths = list(outputs.values())
        for psi in (psi for psi in outputs if psi in inputs):
            basis = np.asarray(group.irrep(*psi).endomorphism_basis())
            self.weights.append(torch.empty(len(basis), inputs[psi], outputs[psi]))
            self.endomorphisms.append(Constant(basis))
        trivial = group.trivial_representation.id
        self.trivial = list(outputs).index(trivial) if trivial in outputs else None
        self.bias = nn.Parameter(torch.empty(outputs[trivial])) if bias and trivial in outputs else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gaussian weights that keep the variance of the input, and zero bias."""
        for weight in self.weights:
            nn.init.normal_(weight, std=(weight.shape[0] * weight.shape[1]) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, features: Features) -> Features:
        maps = zip(self.shared, self.weights, self.endomorphisms, strict=True)
        mapped = {out: isotypic_linear(features[source], w, e.get_buffer("value")) for (out, source), w, e in maps}
        like = next(iter(mapped.values()), features[0])
        outputs = [mapped.get(i, like.new_zeros(())) for i in range(len(self.widths))]
        if self.trivial is not None and self.bias is not None:
            outputs[self.trivial] = outputs[self.trivial] + self.bias.to(like.dtype)
        tokens = like.shape[1:3]
        return tuple(out.expand(d, *tokens, m) for out, d, m in zip(outputs, self.dims, self.widths, strict=True))


class SteerableLinear(TokenModule):
    r"""The general equivariant linear map between two field types, applied at each point.

    $y = Q' \bigl(\bigoplus_\psi W_\psi\bigr) Q^{-1} x + b$, $W_\psi = \sum_k A_k \otimes E_k$, with $E_k$ a basis of
    the endomorphisms of the irrep $\psi$ (Schur's lemma), $Q$, $Q'$ the changes of basis of the types, and $b$ in the
    trivial irreps. It equals escnn's 1×1 `R2Conv`, without expanding a dense matrix, and also works on point clouds.

    Args:
        in_type: any field type on the plane.
        out_type: any field type on the same gspace.
        bias: whether the trivial irreps get a bias.

    Shape:
        (b, in_type.size, h, w) to (b, out_type.size, h, w), or (points, in_type.size) to (points, out_type.size).

    Raises:
        TypeError: if the types are not on one planar gspace.

    Example:
        >>> import torch
        >>> from escnn_attn import SteerableLinear, fourier_type, planar_gspace
        >>> so2 = planar_gspace("SO2")
        >>> linear = SteerableLinear(fourier_type(so2, 4, 2), fourier_type(so2, 6, 1))
        >>> linear(linear.in_type(torch.randn(1, 20, 5, 5))).shape
        torch.Size([1, 18, 5, 5])
        >>> linear.dimension  # complex maps count twice
        72
    """

    def __init__(self, in_type: FieldType, out_type: FieldType, bias: bool = True) -> None:
        super().__init__(in_type, out_type)
        inputs, outputs = self.in_layout.multiplicities, self.out_layout.multiplicities
        self.core = IsotypicLinear(in_type.fibergroup, inputs, outputs, bias)

    @property
    def dimension(self) -> int:
        """Dimension of the space of equivariant maps."""
        return sum(weight.numel() for weight in self.core.weights)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        return tokens.with_features(self.core(tokens.features))
