"""From the features of all stages of a backbone to fields at every pixel."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.nn.convolution import SteerableConvolution
from escnn_attn.nn.linear import SteerableLinear
from escnn_attn.nn.nonlinearity import FourierGELU
from escnn_attn.nn.norm import SteerableRMSNorm
from escnn_attn.nn.resampling import Upsampling


class FeaturePyramidDecoder(nn.Module):
    """Fields at the pixels of an image, of features at several resolutions (feature pyramid networks: Lin et al., 2017).

    From the coarsest stage on: features are interpolated to the grid of the finer stage, added to an equivariant linear map of its
    features, and pass a residual convolution. The last step, to the pixels, adds a convolution of the image itself.

    Args:
        image_type: type of the image.
        types: of the features of each stage, finest first; the first is that of all sums.
        strides: tokens of the stage before (pixels, for the first) from token to token of each stage.
        pixel_type: type of the fields at the pixels, before the last convolution.
        out_type: type of the output.
        padding_mode: `"zeros"`, or `"circular"` for periodic images.

    Shape:
        images (b, c, height, width) and plain features (b, c_i, height_i, width_i) to (b, out_type.size, height, width).
    """

    def __init__(
        self,
        image_type: FieldType,
        types: Sequence[FieldType],
        strides: Sequence[int],
        pixel_type: FieldType,
        out_type: FieldType,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        hidden = types[0]
        self.norms: Iterable[Any] = nn.ModuleList(SteerableRMSNorm(t) for t in types)
        self.laterals: Iterable[Any] = nn.ModuleList(SteerableLinear(t, hidden) for t in types)
        self.refinements: Iterable[Any] = nn.ModuleList(Refinement(hidden, padding_mode) for _ in types)
        self.upsamplings: Iterable[Any] = nn.ModuleList(Upsampling(hidden, stride, padding_mode) for stride in strides[1:])
        self.to_pixels = SteerableLinear(hidden, pixel_type)
        self.upsampling = Upsampling(pixel_type, strides[0], padding_mode)
        self.of_image = SteerableConvolution(image_type, pixel_type, 5, padding_mode=padding_mode)
        self.refinement = Refinement(pixel_type, padding_mode)
        self.readout = SteerableConvolution(pixel_type, out_type, 3, padding_mode=padding_mode)
        with torch.no_grad():
            self.readout.weights.mul_(0.1)  # sums of many fields: outputs begin small

    def forward(self, image: Tensor, features: Sequence[Tensor]) -> Tensor:
        sums = [
            linear.forward_grid(norm.forward_grid(f))
            for norm, linear, f in zip(self.norms, self.laterals, features, strict=True)
        ]
        *refinements, refine = self.refinements
        x = refine(sums[-1])
        for fine, refine, upsampling in reversed(list(zip(sums[:-1], refinements, self.upsamplings, strict=True))):
            x = refine(fine + upsampling.forward_grid(x, size_of(fine)))
        x = self.upsampling.forward_grid(self.to_pixels.forward_grid(x), size_of(image))
        return self.readout.forward_grid(self.refinement(x + self.of_image.forward_grid(image)))


def size_of(x: Tensor) -> tuple[int, int]:
    """Height and width of fields (b, c, height, width)."""
    return x.shape[2], x.shape[3]


class Refinement(nn.Module):
    """A residual convolution of 3 × 3 after a norm and a pointwise function, on plain tensors.

    Args:
        field_type: copies of one representation that `fourier_type` makes.
        padding_mode: of the convolution.
    """

    def __init__(self, field_type: FieldType, padding_mode: str) -> None:
        super().__init__()
        self.norm = SteerableRMSNorm(field_type)
        self.gelu = FourierGELU(field_type) if field_type.fibergroup.continuous else nn.GELU()
        self.convolution = SteerableConvolution(field_type, field_type, 3, padding_mode=padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm.forward_grid(x)
        hidden = self.gelu.forward_grid(hidden) if isinstance(self.gelu, FourierGELU) else self.gelu(hidden)
        return x + self.convolution.forward_grid(hidden)
