"""Equivariant linear maps by Schur's lemma."""

import torch
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.arguments import require_flag
from escnn_attn.fields import Features, Irreps
from escnn_attn.functional import GroupFunctions, IsotypicFeatures, LinearPlan, isotypic_linear
from escnn_attn.nn.modules import TokenModule
from escnn_attn.tokens import Tokens


class IsotypicLinear(nn.Module):
    r"""The general equivariant linear map between isotypic features or functions: the tensor-level core of `SteerableLinear`.

    Irreps that only the output has are zero (trivial ones: the bias).

    Args:
        inputs: irreps of the input.
        outputs: irreps of the output.
        bias: whether the trivial irreps get a bias.
        functions_in: irreps of one function, where the input is functions on the group.
        functions_out: the same for the output.

    Shape:
        isotypic features, one (d, b, t, m) per irrep, or functions, one (b, t, r, c), to the same of the output.
    """

    def __init__(
        self,
        inputs: Irreps,
        outputs: Irreps,
        bias: bool = True,
        *,
        functions_in: Irreps | None = None,
        functions_out: Irreps | None = None,
    ) -> None:
        super().__init__()
        self.plan = LinearPlan.between(_layout(inputs, functions_in), _layout(outputs, functions_out))
        shapes = [(inputs.endomorphisms[a], inputs.multiplicities[a], outputs.multiplicities[b]) for a, b in self.plan.pairs]
        self.weights = nn.ParameterList(torch.empty(shape) for shape in shapes)
        trivial = outputs.trivial_index
        self.bias = nn.Parameter(torch.empty(outputs.multiplicities[trivial])) if bias and trivial is not None else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gaussian weights that keep the variance of the input, and zero bias."""
        for weight in self.weights:
            nn.init.normal_(weight, std=(weight.shape[0] * weight.shape[1]) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, tensors: Features, gains: Tensor | None = None) -> Features:
        """The map; `gains` (c,) are factors of the input's channels, of functions on the group."""
        weights = list(self.weights)
        if gains is not None:  # of the weights, which are few, instead of the functions
            weights = [weight * gains.repeat(weight.shape[1] // len(gains))[:, None] for weight in weights]
        return isotypic_linear(self.plan, tensors, weights, self.bias)


def _layout(irreps: Irreps, function: Irreps | None) -> IsotypicFeatures:
    return IsotypicFeatures(irreps) if function is None else GroupFunctions(irreps, function)


class SteerableLinear(TokenModule):
    r"""The general equivariant linear map between two field types, applied at each point.

    $y = T' \bigl(\bigoplus_\psi \sum_a W_{\psi a} \otimes E_{\psi a}\bigr) T^{-1} x + b$, equation (2) of docs/mathematics.md, with
    $E_{\psi a}$ a basis of the endomorphisms of the irrep $\psi$ (Schur's lemma), $T$, $T'$ the changes of basis of the types,
    and $b$ in the trivial irreps. It equals escnn's 1×1 `R2Conv`, without expanding a dense matrix, and also works on point clouds.

    Args:
        in_type: any field type on the plane.
        out_type: any field type on the same gspace.
        bias: whether the trivial irreps get a bias.

    Shape:
        (b, in_type.size, height, width) to (b, out_type.size, height, width), or (points, in_type.size) to (points, out_type.size).

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
        require_flag("bias", bias)
        self.core = IsotypicLinear(self.in_layout.irreps, self.out_layout.irreps, bias)

    @property
    def dimension(self) -> int:
        """Dimension of the space of equivariant maps."""
        return sum(weight.numel() for weight in self.core.weights)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        return tokens.with_features(self.core(tokens.features))
