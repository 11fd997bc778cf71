"""Equivariant feed-forward layers: bilinear, gated, and pointwise on group samples."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from escnn.nn import FieldType
from torch import nn

from escnn_attn.arguments import require_positive
from escnn_attn.fields import (
    ExactBuffer,
    Features,
    IsotypicLayout,
    group_samples,
    max_frequency,
    require_planar,
    require_samples,
    spectral_type,
    synthesis_matrix,
)
from escnn_attn.fields.functions import aliasing, nonlinearity_samples
from escnn_attn.functional import GELU, PRODUCT, Activation, invariants, pointwise
from escnn_attn.nn.linear import IsotypicLinear
from escnn_attn.nn.modules import TokenModule
from escnn_attn.tokens import Tokens


class FunctionFeedForward(TokenModule):
    r"""Base class: $W_2\,\bar A^+ \phi(\bar A\,W_1 x)$ with a map $\phi$ of functions on the group, computed on samples.

    A subclass names the map, which takes `factors` functions for each hidden channel to one.

    Args:
        in_type: field type of input and output.
        expansion: width of the hidden layer, relative to the input.
        rotations: gives the number of sampled rotations for a band limit, where the group is continuous.
    """

    factors: int
    activation: Activation

    def __init__(self, in_type: FieldType, expansion: float, rotations: Callable[[int], int]) -> None:
        super().__init__(in_type, in_type)
        expansion = require_positive("expansion", expansion)
        group, limit = in_type.fibergroup, max_frequency(in_type)
        function = spectral_type(in_type.gspace, 1, limit)
        irreps = IsotypicLayout(function).irreps
        self.channels = max(1, round(expansion * in_type.size / function.size))
        elements = group_samples(group, rotations(limit) if group.continuous else None)
        self.matrix = ExactBuffer(synthesis_matrix(group, irreps.ids, elements))
        hidden = irreps.times(self.channels)
        self.project_in = IsotypicLinear(self.in_layout.irreps, hidden.times(self.factors), functions_out=irreps)
        self.project_out = IsotypicLinear(hidden, self.in_layout.irreps, functions_in=irreps)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        (coefficients,) = self.project_in(tokens.features)
        # scaled so that values have the variance of coefficients, whatever the number of samples
        samples, size = self.matrix.shape
        scale = (samples / size) ** 0.5
        matrix = self.matrix.like(coefficients)
        hidden = pointwise(coefficients, matrix * scale, matrix.mT / scale, self.activation)
        return tokens.with_features(self.project_out((hidden,)))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, hidden_channels={self.channels}, num_samples={self.matrix.shape[0]}"


class BilinearFeedForward(FunctionFeedForward):
    r"""Products of functions on the group: $W_3\,P_L\bigl[(W_1 x)(g)\cdot(W_2 x)(g)\bigr]$, exactly equivariant.

    Equation (15) of docs/mathematics.md: a bilinear gated unit (Shazeer, 2020, https://arxiv.org/abs/2002.05202) of functions. The product has band limit
    2L, so 3L + 1 rotations project it onto the band limit L without error: a Clebsch-Gordan product of all
    frequencies in two matrix products.

    Args:
        in_type: any field type on the plane, of input and output.
        expansion: width of the hidden layer, relative to the input.

    Shape:
        (b, c, height, width) or (points, c), unchanged.

    Raises:
        TypeError: if the type is not one on the plane, or the expansion no number.
        ValueError: if the expansion is not positive and finite.

    Examples:
        >>> import torch
        >>> from escnn_attn import BilinearFeedForward, fourier_type, planar_gspace
        >>> feedforward = BilinearFeedForward(fourier_type(planar_gspace("SO2"), 4, 3))
        >>> feedforward.matrix.shape
        (10, 7)
    """

    factors, activation = 2, PRODUCT

    def __init__(self, in_type: FieldType, expansion: float = 2) -> None:
        super().__init__(in_type, expansion, rotations=lambda limit: 3 * limit + 1)


class FourierFeedForward(FunctionFeedForward):
    r"""A smooth nonlinearity on samples of the group: $W_2\,\bar A^+\,\mathrm{GELU}(\bar A\,W_1 x)$.

    Equation (16) of docs/mathematics.md. Exact for finite groups, and the ordinary feed-forward layer for the trivial group. For continuous groups it aliases:
    the relative error under rotations falls with the number of samples.

    Args:
        in_type: any field type on the plane, of input and output.
        expansion: width of the hidden layer, relative to the input.
        num_samples: number of rotations, of continuous groups alone (finite ones take all elements); None for the smallest multiple of
            4 whose measured aliasing is below `tolerance`.
        tolerance: relative error under rotations, for Gaussian input.

    Shape:
        (b, c, height, width) or (points, c), unchanged.

    Raises:
        TypeError: if the type is not one on the plane, or an argument no number.
        ValueError: if the expansion or tolerance is not positive and finite, there are too few samples for the band limit, or any for
            a finite group.

    Examples:
        >>> from escnn_attn import FourierFeedForward, fourier_type, planar_gspace
        >>> so2 = planar_gspace("SO2")
        >>> [FourierFeedForward(fourier_type(so2, 4, 3), tolerance=t).matrix.shape[0] for t in (1e-2, 1e-4)]
        [16, 32]
    """

    factors, activation = 1, GELU

    def __init__(
        self, in_type: FieldType, expansion: float = 2, num_samples: int | None = None, tolerance: float = 1e-3
    ) -> None:
        require_planar(in_type)
        limit, continuous = max_frequency(in_type), in_type.fibergroup.continuous
        tolerance, num_samples = require_positive("tolerance", tolerance), require_samples(in_type, limit, num_samples)
        super().__init__(in_type, expansion, lambda limit: num_samples or nonlinearity_samples(F.gelu, limit, tolerance))
        self._aliasing = 0.0
        if continuous:
            self._aliasing = tolerance if num_samples is None else aliasing(F.gelu, limit, num_samples)

    @property
    def equivariance_tolerance(self) -> float:
        return self._aliasing


class GatedFeedForward(TokenModule):
    r"""Fields scaled by functions of invariants: $W_2\bigl[\sigma(W_g I(h) + b) \odot h\bigr]$, $h = W_1 x$; exact.

    Equation (17) of docs/mathematics.md: $I(h)$ are the trivial copies of $h$ and the norms of the others, $\sigma$ the sigmoid; one gate for each irrep copy.

    Args:
        in_type: any field type on the plane, of input and output.
        expansion: multiplicity of each irrep in the hidden layer, relative to the input.

    Shape:
        (b, c, height, width) or (points, c), unchanged.

    Raises:
        TypeError: if the type is not one on the plane, or the expansion no number.
        ValueError: if the expansion is not positive and finite.

    Examples:
        >>> from escnn_attn import GatedFeedForward, fourier_type, planar_gspace
        >>> GatedFeedForward(fourier_type(planar_gspace("SO2"), 4, 3)).gate.out_features
        32
    """

    def __init__(self, in_type: FieldType, expansion: float = 2) -> None:
        super().__init__(in_type, in_type)
        inputs = self.in_layout.irreps
        hidden = inputs.times(require_positive("expansion", expansion))
        self.project_in, self.project_out = IsotypicLinear(inputs, hidden), IsotypicLinear(hidden, inputs)
        self.gate = nn.Linear(hidden.num_copies, hidden.num_copies)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        hidden = self.project_in(tokens.features)
        gates = torch.sigmoid(self.gate(invariants(hidden, self.in_layout.irreps.trivial)))
        parts = gates.split([h.shape[-1] for h in hidden], dim=-1)
        gated: Features = tuple(h * g for h, g in zip(hidden, parts, strict=True))
        return tokens.with_features(self.project_out(gated))
