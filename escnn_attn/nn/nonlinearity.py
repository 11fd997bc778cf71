"""A smooth nonlinearity of functions on the group, for between convolutions."""

import torch.nn.functional as F
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.fields import ExactBuffer, group_samples, require_samples, require_spectral, synthesis_matrix
from escnn_attn.fields.functions import aliasing
from escnn_attn.fields.types import frequency
from escnn_attn.functional import GELU, pointwise
from escnn_attn.nn.modules import PlanarModule
from escnn_attn.tokens import require_input


class FourierGELU(PlanarModule):
    r"""GELU on samples of functions on the group, $\bar A^+\,\mathrm{GELU}(\bar A \hat f)$ for each field.

    It may take the place of `escnn.nn.FourierELU`, but keeps no values on samples for the gradient (that of ELU is slow on CPU
    besides), and exports.

    Args:
        in_type: copies of one spectral field (`fourier_type` with a max_frequency), of input and output.
        num_samples: number of rotations, for continuous groups; None for four times the band limit, at least 16.

    Shape:
        (b, c, height, width) or (points, c), unchanged.

    Raises:
        TypeError: if the type is not one on the plane.
        ValueError: for other fields, or too few samples for the band limit.

    Examples:
        >>> import torch
        >>> from escnn_attn import FourierGELU, fourier_type, planar_gspace
        >>> nonlinearity = FourierGELU(fourier_type(planar_gspace("SO2"), 4, 3))
        >>> nonlinearity(nonlinearity.in_type(torch.randn(1, 28, 5, 5))).shape
        torch.Size([1, 28, 5, 5])
        >>> round(nonlinearity.equivariance_tolerance, 4)  # relative error under rotations, for Gaussian input
        0.0095
    """

    def __init__(self, in_type: FieldType, num_samples: int | None = None) -> None:
        super().__init__(in_type, in_type)
        group, irreps = in_type.fibergroup, require_spectral(in_type)
        limit = max(frequency(group, irrep) for irrep in irreps)
        num_samples = require_samples(in_type, limit, num_samples) or max(16, 4 * limit)
        elements = group_samples(group, num_samples if group.continuous else None)
        self.matrix = ExactBuffer(synthesis_matrix(group, irreps, elements))
        self._aliasing = aliasing(F.gelu, limit, num_samples) if group.continuous else 0.0

    @property
    def equivariance_tolerance(self) -> float:
        return self._aliasing

    def forward(self, x: GeometricTensor) -> GeometricTensor:
        x = require_input(x, self.in_type, self)
        return GeometricTensor(self.forward_grid(x.tensor), self.out_type, x.coords)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The nonlinearity on plain tensors (b, c, …)."""
        samples, size = self.matrix.shape
        # scaled so that values have the variance of coefficients, whatever the number of samples
        scale = (samples / size) ** 0.5
        matrix = self.matrix.like(x)
        functions = x.unflatten(1, (x.shape[1] // size, size))
        functions = functions.flatten(3) if x.dim() > 2 else functions[..., None]
        return pointwise(functions, matrix * scale, matrix.mT / scale, GELU).reshape(x.shape)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_samples={self.matrix.shape[0]}"
