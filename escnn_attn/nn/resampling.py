"""Fields on coarser and on finer grids about the same center, whatever the side."""

from typing import Any, TypeVar

import numpy as np
import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.arguments import require_choice, require_integer, require_items, require_positive
from escnn_attn.fields import ExactBuffer
from escnn_attn.modes import kept_open, plain_number
from escnn_attn.nn.convolution import PADDING_MODES, SteerableConvolution, convolve, kernel_number
from escnn_attn.nn.modules import PlanarModule, TokenModule
from escnn_attn.tokens import Grid, Lattice, Tokens, constants, lattice_positions, require_grid
from escnn_attn.tokens.windows import coarse_grid

Array = TypeVar("Array", np.ndarray, Tensor)


class AntialiasedPooling(PlanarModule):
    r"""Gaussian means at a stride, which keep the rotation center of images of every side.

    As `escnn.nn.PointwiseAvgPoolAntialiased`, but for even sides too (see `SteerableConvolution`).

    Args:
        in_type: any field type on the plane.
        stride: pixels from token to token.
        sigma: standard deviation of the Gaussian, in pixels.
        padding_mode: `"zeros"`, or `"circular"` for periodic images, whose sides must be multiples of the stride.

    Shape:
        (b, c, height, width) to (b, c, ⌈height / stride⌉, ⌈width / stride⌉).

    Raises:
        TypeError: if the type is not one on the plane, or a number is none.
        ValueError: if a number is not positive.

    Examples:
        >>> import torch
        >>> from escnn_attn import AntialiasedPooling, field_type, planar_gspace
        >>> pool = AntialiasedPooling(field_type(planar_gspace("O2"), vectors=1), stride=2)
        >>> pool(pool.in_type(torch.ones(1, 2, 28, 29))).shape
        torch.Size([1, 2, 14, 15])
    """

    #: for `tokens.windows`: padding follows from the side
    centered = True

    def __init__(self, in_type: FieldType, stride: int = 2, sigma: float = 0.66, padding_mode: str = "zeros") -> None:
        super().__init__(in_type, in_type)
        self.stride, self.sigma = require_integer("stride", stride), require_positive("sigma", sigma)
        self.padding_mode = require_choice("padding_mode", padding_mode, PADDING_MODES)
        self.kernel_size = max(2 * round(3 * self.sigma) + 1, 2 * (self.stride // 2) + 1)
        self.padding = self.kernel_size // 2
        shapes = [(self.kernel_size + high, self.kernel_size + wide) for high in (0, 1) for wide in (0, 1)]
        for number, shape in enumerate(shapes):
            self.add_module(f"kernel_{number}", ExactBuffer(_gaussian(*shape, self.sigma)))

    def forward(self, x: GeometricTensor) -> GeometricTensor:
        return GeometricTensor(self.forward_grid(require_grid(x, self.in_type, self)), self.out_type)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The means of plain tensors (b, c, height, width), without any type."""
        return convolve(x, self.kernel_of(x), None, self.stride, self.padding_mode, groups=x.shape[1])

    def kernel_of(self, x: Tensor) -> Tensor:
        """The kernel (c, 1, rows, columns) for images (b, c, height, width)."""
        kernel = self.get_submodule(f"kernel_{kernel_number(x, self.stride)}")
        assert isinstance(kernel, ExactBuffer)
        return kernel.like(x).expand(x.shape[1], 1, -1, -1)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, channels, *sides = super().evaluate_output_shape(input_shape)
        return (batch, channels, *(-(-side // self.stride) for side in sides))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, stride={self.stride}, sigma={self.sigma}"


class Upsampling(PlanarModule):
    r"""Fields at the pixels of a finer grid about the same center, by cubic interpolation (Keys, 1981).

    The inverse of the grids of `SteerableConvolution`: its tokens are `scale` pixels apart, and the finer grid may have any size. As
    `escnn.nn.R2Upsampling`, but that stretches tokens to the sides of the finer grid, which turns them about another center or scales
    them by another factor than the stride.

    Args:
        in_type: any field type on the plane.
        scale: pixels from token to token.
        padding_mode: `"zeros"`, for values that go on as they are at the border, or `"circular"` for periodic images.

    Shape:
        (b, c, height, width) to (b, c, scale · height, scale · width), or to the size that is asked for.

    Raises:
        TypeError: if the type is not one on the plane, or a number no integer.
        ValueError: if a number is not positive.

    Examples:
        >>> import torch
        >>> from escnn_attn import Upsampling, field_type, planar_gspace
        >>> up = Upsampling(field_type(planar_gspace("O2"), vectors=1), scale=2)
        >>> up(up.in_type(torch.ones(1, 2, 15, 15)), size=(29, 30)).shape
        torch.Size([1, 2, 29, 30])
    """

    def __init__(self, in_type: FieldType, scale: int, padding_mode: str = "zeros") -> None:
        super().__init__(in_type, in_type)
        self.scale = require_integer("scale", scale)
        self.padding_mode = require_choice("padding_mode", padding_mode, PADDING_MODES)

    def forward(self, x: GeometricTensor, size: tuple[int, int] | None = None) -> GeometricTensor:
        """Upsamples to a size (height, width); None for `scale` times that of `x`."""
        if size is not None and not torch.compiler.is_compiling():
            for side in require_items("size", size, 2):
                require_integer("size", side)
        return GeometricTensor(self.forward_grid(require_grid(x, self.in_type, self), size), self.out_type)

    def forward_grid(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The interpolation of plain tensors (b, c, height, width), without any type."""
        tokens = x.shape[2:]
        height, width = (self.scale * side for side in tokens) if size is None else size
        rows, columns = (self._weights(*sides, x) for sides in zip((height, width), tokens, strict=True))
        return rows @ x @ columns.mT

    def _weights(self, pixels: int, tokens: int, x: Tensor) -> Tensor:
        """Weights (pixels, tokens), of the dtype and on the device of x."""
        sides = (pixels, tokens)
        periodic = self.padding_mode == "circular"
        if kept_open(*sides):
            places = [torch.arange(side, dtype=torch.float64, device=x.device) for side in sides]
            return interpolation(places[0], places[1], self.scale, periodic).to(x.dtype)
        sides = (plain_number(side) for side in sides)
        return _kept_interpolation(*sides, self.scale, periodic, dtype=x.dtype, device=x.device)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, channels, *sides = super().evaluate_output_shape(input_shape)
        return (batch, channels, *(self.scale * side for side in sides))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale}"


class PatchMerging(TokenModule):
    """A blur, and a strided convolution from the tokens of a grid to those of a coarser one about the same center.

    What is finer than the coarser grid would turn into another pattern when an image turns; the blur takes it away (Zhang, 2019). Mask, weights and the largest centered disc follow: a token of the coarser grid counts if one of the nearest does.

    Args:
        in_type: type of the tokens.
        out_type: type of the tokens of the coarser grid.
        stride: tokens of the finer grid from token to token.
        kernel_size: of the `SteerableConvolution`, odd.
        sigma: standard deviation of the blur, in tokens.

    Shape:
        (b, in_type.size, height, width) to (b, out_type.size, ⌈height / stride⌉, ⌈width / stride⌉).

    Raises:
        TypeError: if the types are not on one planar gspace, or a number is none; in a call, for clouds.
        ValueError: if a number does not fit.

    Examples:
        >>> import torch
        >>> from escnn_attn import PatchMerging, fourier_type, planar_gspace
        >>> narrow, wide = (fourier_type(planar_gspace("SO2"), n, 1) for n in (2, 4))
        >>> PatchMerging(narrow, wide)(narrow(torch.randn(1, 6, 14, 15))).shape
        torch.Size([1, 12, 7, 8])
    """

    def __init__(
        self, in_type: FieldType, out_type: FieldType, *, stride: int = 2, kernel_size: int = 5, sigma: float = 1.0
    ) -> None:
        super().__init__(in_type, out_type)
        self.blur = AntialiasedPooling(in_type, 1, sigma)
        self.convolution = SteerableConvolution(in_type, out_type, kernel_size, stride=stride)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        fine = tokens.domain
        if not isinstance(fine, Grid):
            raise TypeError(f"expected the tokens of a grid to merge, got those of {type(fine).__name__}")
        mode, x = "zeros" if fine.cell is None else "circular", tokens.plain(self.in_layout)
        x = convolve(x, self.blur.kernel_of(x), None, 1, mode, groups=x.shape[1])
        made = convolve(x, *self.convolution.kernel_of(x), self.convolution.stride, mode)
        return Tokens.on(coarse_grid(made, fine, self.convolution.stride), made, self.out_layout)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().evaluate_output_shape(input_shape)  # which checks it
        return self.convolution.evaluate_output_shape(input_shape)


def _gaussian(rows: int, columns: int, sigma: float) -> np.ndarray:
    squared = np.square(lattice_positions(Lattice(rows, columns))).sum(axis=1)
    weights = np.exp((squared.min() - squared) / (2 * sigma**2)).reshape(1, 1, rows, columns)
    return weights / weights.sum()


def interpolation(pixels: Array, tokens: Array, scale: int, periodic: bool) -> Array:
    """Weights (pixels, tokens) of cubic interpolation at pixels, between tokens that are `scale` pixels apart, both numbered from 0."""
    at: Any = (pixels - (pixels.shape[0] - 1) / 2) / scale + (tokens.shape[0] - 1) / 2
    weights: Any = 0.0
    for shift in (-1, 0, 1, 2):
        near: Any = at // 1 + shift
        token = near % tokens.shape[0] if periodic else near.clip(0, tokens.shape[0] - 1)
        weights = weights + _cubic(abs(at - near))[:, None] * (token[:, None] == tokens)
    return weights


def _cubic(distance: Any) -> Any:
    """The kernel of cubic convolution with a = −1/2."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return near * (distance <= 1) + far * ((distance > 1) & (distance < 2))


_kept_interpolation = constants(
    lambda pixels, tokens, *options: interpolation(np.arange(float(pixels)), np.arange(float(tokens)), *options)
)
