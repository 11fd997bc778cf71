"""Equivariant linear maps by Schur's lemma."""

import numpy as np
import torch
from escnn.group import Group
from escnn.nn import FieldType
from torch import nn

from escnn_attn.fields.types import Multiplicities
from escnn_attn.functional.attention import Features
from escnn_attn.functional.schur import GroupFunctions, IsotypicFeatures, LinearPlan, isotypic_linear
from escnn_attn.nn.modules import TokenModule
from escnn_attn.tokens.tokens import Tokens

#: what commutes with an irrep of the plane's groups, in escnn's basis: the identity, and for those of complex type J
ENDOMORPHISMS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]]])


class IsotypicLinear(nn.Module):
    r"""Every equivariant linear map between isotypic features or functions: the tensor-level core of `SteerableLinear`.

    Irreps that only the output has are zero (trivial ones: the bias).

    Args:
        group: the fibre group.
        inputs: multiplicity of each irrep of the input.
        outputs: multiplicity of each irrep of the output.
        bias: whether the trivial irreps get a bias.
        functions_in: copies of each irrep in one function, where the input is functions on the group.
        functions_out: the same for the output.

    Shape:
        isotypic features, one (d, b, t, m) for each irrep, or functions, one (b, t, r, c), to the same of the output.
    """

    def __init__(
        self,
        group: Group,
        inputs: Multiplicities,
        outputs: Multiplicities,
        bias: bool = True,
        *,
        functions_in: Multiplicities | None = None,
        functions_out: Multiplicities | None = None,
    ) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        source, target = _layout(group, inputs, functions_in), _layout(group, outputs, functions_out)
        shared = [psi for psi in outputs if psi in inputs]
        pairs = tuple((list(inputs).index(psi), list(outputs).index(psi)) for psi in shared)
        trivial = group.trivial_representation.id
        self.plan = LinearPlan(source, target, pairs, list(outputs).index(trivial) if trivial in outputs else None)
        for psi in shared:
            irrep = group.irrep(*psi)
            basis = np.asarray(irrep.endomorphism_basis())
            assert np.array_equal(basis, ENDOMORPHISMS[: len(basis), : irrep.size, : irrep.size]), f"{psi}: {basis}"
            self.weights.append(torch.empty(len(basis), inputs[psi], outputs[psi]))
        self.bias = nn.Parameter(torch.empty(outputs[trivial])) if bias and trivial in outputs else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gaussian weights that keep the variance of the input, and zero bias."""
        for weight in self.weights:
            nn.init.normal_(weight, std=(weight.shape[0] * weight.shape[1]) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, tensors: Features) -> Features:
        return isotypic_linear(self.plan, tensors, list(self.weights), self.bias)


def _layout(group: Group, multiplicities: Multiplicities, functions: Multiplicities | None) -> IsotypicFeatures:
    dims, widths = tuple(group.irrep(*psi).size for psi in multiplicities), tuple(multiplicities.values())
    return IsotypicFeatures(dims, widths) if functions is None else GroupFunctions(dims, widths, tuple(functions.values()))


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

    Examples:
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
