"""From images to tokens, with the steerable convolutions of escnn."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import escnn.nn
from escnn.nn import EquivariantModule, FieldType
from torch import nn

from escnn_attn.fields import field_type
from escnn_attn.nn.attention import LiftingSelfAttention, RegularSelfAttention, SteerableAttention
from escnn_attn.nn.neighborhood import Neighborhood
from escnn_attn.nn.nonlinearity import FourierGELU
from escnn_attn.nn.norm import SteerableRMSNorm


def convolution_stem(
    in_type: FieldType,
    out_type: FieldType,
    *,
    kernel_sizes: Sequence[int] = (9, 5),
    strides: Sequence[int] = (2, 2),
    hidden_channels: int | None = None,
    norm: Callable[[FieldType], EquivariantModule] = SteerableRMSNorm,
) -> escnn.nn.SequentialModule:
    """Steerable convolutions of escnn from an image to a coarser grid of Fourier fields.

    Each convolution but the last is followed by a norm and a GELU on samples of the group (an ELU, for finite groups). A stride
    keeps the rotation center if it divides the side of the image minus 1, as in 29 to 15 to 8.

    Args:
        in_type: type of the image.
        out_type: type of the tokens, copies of one representation.
        kernel_sizes: one odd number per convolution.
        strides: one number per convolution.
        hidden_channels: fields between the convolutions; by default half the number in `out_type`.
        norm: makes the norm of a type between them, such as `escnn.nn.IIDBatchNorm2d`.

    Raises:
        ValueError: if the kernel sizes are not odd, or not as many as the strides.

    Examples:
        >>> from escnn_attn import convolution_stem, field_type, fourier_type, planar_gspace
        >>> so2 = planar_gspace("SO2")
        >>> stem = convolution_stem(field_type(so2, scalars=1), fourier_type(so2, 4, 2))
        >>> stem.evaluate_output_shape((1, 1, 29, 29))
        (1, 20, 8, 8)
    """
    if not kernel_sizes or len(kernel_sizes) != len(strides) or any(k % 2 == 0 for k in kernel_sizes):
        raise ValueError(f"expected as many odd kernel sizes as strides, got {kernel_sizes} and {strides}")
    channels = max(1, len(out_type) // 2) if hidden_channels is None else hidden_channels
    hidden = FieldType(out_type.gspace, [out_type.representations[0]] * channels)
    layers: list[EquivariantModule] = []
    types = [in_type, *[hidden] * (len(strides) - 1), out_type]
    for index, (size, stride) in enumerate(zip(kernel_sizes, strides, strict=True)):
        if index:
            layers += [norm(hidden), _pointwise(hidden)]
        convolution = escnn.nn.R2Conv(types[index], types[index + 1], size, stride=stride, padding=size // 2)
        # escnn shares kernel bases between all convolutions of the process: .double() on one network would break others
        layers.append(copy.deepcopy(convolution))
    return escnn.nn.SequentialModule(*layers)


def lifting_stem(
    in_type: FieldType,
    out_type: FieldType,
    *,
    hidden_channels: int = 16,
    kernel_size: int = 9,
    num_heads: int = 4,
    neighborhood: Neighborhood | None = None,
    norm: Callable[[FieldType], EquivariantModule] = SteerableRMSNorm,
) -> escnn.nn.SequentialModule:
    """Lifting self-attention from scalars to functions on a finite group, after a convolution and before pooling, each of stride 2.

    The convolution has radial kernels, as equivariant maps of scalars have, so that only attention sees directions.

    Args:
        in_type: type of the image, scalars.
        out_type: type of the tokens, copies of the regular representation.
        hidden_channels: scalars that are lifted.
        kernel_size: of the convolution, odd.
        num_heads: of the lifting self-attention.
        neighborhood: the tokens that a token attends to; None for all.
        norm: makes the norm of a type after the convolution.

    Raises:
        ValueError: if the kernel size is not odd.

    Examples:
        >>> from escnn_attn import field_type, fourier_type, lifting_stem, planar_gspace
        >>> d4 = planar_gspace("D4")
        >>> lifting_stem(field_type(d4, scalars=1), fourier_type(d4, 4)).evaluate_output_shape((1, 1, 29, 29))
        (1, 32, 8, 8)
    """
    if kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
    scalars = field_type(out_type.gspace, scalars=hidden_channels)
    return escnn.nn.SequentialModule(
        copy.deepcopy(escnn.nn.R2Conv(in_type, scalars, kernel_size, stride=2, padding=kernel_size // 2)),
        norm(scalars),
        escnn.nn.ELU(scalars),
        LiftingSelfAttention(scalars, out_type, num_heads=num_heads, neighborhood=neighborhood),
        escnn.nn.PointwiseAvgPoolAntialiased(out_type, sigma=0.66, stride=2),
    )


class Window(NamedTuple):
    """Extent, padding and stride of a convolution or pooling, in pixels."""

    extent: int
    padding: int
    stride: int


@runtime_checkable
class Windowed(Protocol):
    """A convolution or pooling."""

    kernel_size: int | tuple[int, int]
    padding: int | tuple[int, int]
    stride: int | tuple[int, int]


@runtime_checkable
class Dilated(Windowed, Protocol):
    """A convolution that may be dilated."""

    dilation: int | tuple[int, int] | None


def windows_of(stem: nn.Module) -> list[Window]:
    """The windows of the convolutions and poolings of a stem, in order."""
    found = []
    for module in stem.modules():
        if isinstance(module, Windowed):
            dilation = (_first(module.dilation) if isinstance(module, Dilated) and module.dilation else None) or 1
            extent = dilation * (_first(module.kernel_size) - 1) + 1
            found.append(Window(extent, _first(module.padding), _first(module.stride)))
    return found


def _first(size: int | tuple[int, int]) -> int:
    return int(size[0] if isinstance(size, tuple) else size)


def attends(stem: nn.Module) -> bool:
    """Whether a stem has attention inside, which would have to know masks at its own resolution."""
    return any(isinstance(module, RegularSelfAttention | SteerableAttention) for module in stem.modules())


def stride_of(windows: Sequence[Window]) -> int:
    """Pixels from token to token: the product of the strides."""
    return math.prod(window.stride for window in windows)


def keeps_center(windows: Sequence[Window], side: int) -> bool:
    """Whether windows leave equal margins at both ends of an image side.

    Only then do the centers of image and tokens, about which both rotate, agree.
    """
    for extent, padding, stride in windows:
        free = side + 2 * padding - extent
        if free < 0 or free % stride:
            return False
        side = free // stride + 1
    return True


def fitting_side(windows: Sequence[Window], least: int) -> int | None:
    """The smallest side, at least `least`, of images that keep their rotation center; None if none is near."""
    sides = range(least, least + 2 * stride_of(windows) + 64)
    return next((side for side in sides if keeps_center(windows, side)), None)


def _pointwise(hidden: FieldType) -> EquivariantModule:
    return FourierGELU(hidden) if hidden.fibergroup.continuous else escnn.nn.ELU(hidden)
