"""From images to tokens, with the steerable convolutions of escnn."""

from collections.abc import Callable, Sequence

import escnn.nn
from escnn.nn import EquivariantModule, FieldType
from torch import nn

from escnn_attn.arguments import require_factory, require_integer, require_items
from escnn_attn.fields import field_type, require_planar
from escnn_attn.nn.attention import LiftingSelfAttention, RegularSelfAttention, SteerableAttention, SteerableSelfAttention
from escnn_attn.nn.convolution import SteerableConvolution
from escnn_attn.nn.neighborhood import Neighborhood
from escnn_attn.nn.nonlinearity import FourierGELU
from escnn_attn.nn.norm import SteerableRMSNorm
from escnn_attn.nn.resampling import AntialiasedPooling
from escnn_attn.nn.sequential import SequentialModule


def convolution_stem(
    in_type: FieldType,
    out_type: FieldType,
    *,
    kernel_sizes: Sequence[int] = (9, 5),
    strides: Sequence[int] = (2, 2),
    hidden_channels: int | None = None,
    norm: Callable[[FieldType], EquivariantModule] = SteerableRMSNorm,
    padding_mode: str = "zeros",
) -> SequentialModule:
    """Steerable convolutions from an image of any size to a coarser grid of Fourier fields.

    Each convolution but the last is followed by a norm and a GELU on samples of the group (an ELU, for finite groups).

    Args:
        in_type: type of the image.
        out_type: type of the tokens, copies of one representation.
        kernel_sizes: one odd number per convolution (see `SteerableConvolution`).
        strides: one number per convolution.
        hidden_channels: fields between the convolutions; by default half the number in `out_type`.
        norm: makes the norm of a type between them, such as `SteerableBatchNorm`.
        padding_mode: `"zeros"`, or `"circular"` for periodic images.

    Raises:
        TypeError: if a type is not on the plane, or a number no integer.
        ValueError: if a number is not positive, or the kernel sizes are not odd, or not as many as the strides.

    Examples:
        >>> from escnn_attn import convolution_stem, field_type, fourier_type, planar_gspace
        >>> so2 = planar_gspace("SO2")
        >>> stem = convolution_stem(field_type(so2, scalars=1), fourier_type(so2, 4, 2))
        >>> stem.evaluate_output_shape((1, 1, 29, 29)), stem.evaluate_output_shape((1, 1, 28, 30))
        ((1, 20, 8, 8), (1, 20, 7, 8))
    """
    steps = [require_integer("strides", stride) for stride in require_items("strides", strides)]
    sizes = [require_integer("kernel_sizes", size) for size in require_items("kernel_sizes", kernel_sizes)]
    if len(sizes) != len(steps) or any(size % 2 == 0 for size in sizes):
        raise ValueError(f"expected as many odd kernel sizes as strides, got kernel_sizes={kernel_sizes} and strides={strides}")
    _require_ends(in_type, out_type, norm)
    channels = max(1, len(out_type) // 2) if hidden_channels is None else require_integer("hidden_channels", hidden_channels)
    hidden = FieldType(out_type.gspace, [out_type.representations[0]] * channels)
    layers: list[EquivariantModule] = []
    types = [in_type, *[hidden] * (len(steps) - 1), out_type]
    for index, (size, stride) in enumerate(zip(sizes, steps, strict=True)):
        if index:
            layers += [norm(hidden), pointwise_of(hidden)]
        layers.append(SteerableConvolution(types[index], types[index + 1], size, stride=stride, padding_mode=padding_mode))
    return SequentialModule(*layers)


class _OffsetConvolution(SteerableConvolution):
    """A `SteerableConvolution` whose biases start Gaussian, of variance 1, rather than zero.

    Where an image is empty, features are then constant. With zero bias they are tiny, and norms make them as large as all others:
    pixels, which know directions, would be seen magnified.

    Args:
        in_type, out_type, kernel_size, **options: those of `SteerableConvolution`.
    """

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.bias is not None:
            nn.init.normal_(self.bias)


def antialiased_stem(
    in_type: FieldType,
    out_type: FieldType,
    *,
    kernel_sizes: Sequence[int] = (11, 5),
    strides: Sequence[int] = (4, 2, 2),
    hidden_channels: int = 8,
    norm: Callable[[FieldType], EquivariantModule] = SteerableRMSNorm,
    padding_mode: str = "zeros",
) -> SequentialModule:
    """Two steerable convolutions with Gaussian means between them, from a large image to the tokens of patches.

    The first convolution, to few fields, has the largest stride. A norm and a GELU on samples of the group (an ELU, for finite groups)
    follow, which make finer patterns than the tokens can hold; the means take these away (Zhang, 2019).

    Args:
        in_type: type of the image.
        out_type: type of the tokens, copies of one representation.
        kernel_sizes: of the two convolutions, odd.
        strides: of the first convolution, of the means (also their standard deviation), and of the second convolution.
        hidden_channels: fields between the convolutions.
        norm: makes the norm of a type between them.
        padding_mode: `"zeros"`, or `"circular"` for periodic images.

    Raises:
        TypeError: if a type is not on the plane, or a number no integer.
        ValueError: if a number is not positive, a kernel size is not odd or less than its stride, or there are not two kernel sizes and
            three strides.

    Examples:
        >>> from escnn_attn import antialiased_stem, field_type, fourier_type, planar_gspace
        >>> so2 = planar_gspace("SO2")
        >>> antialiased_stem(field_type(so2, scalars=3), fourier_type(so2, 4, 2)).evaluate_output_shape((1, 3, 224, 225))
        (1, 20, 14, 15)
    """
    sizes = [require_integer("kernel_sizes", size) for size in require_items("kernel_sizes", kernel_sizes)]
    steps = [require_integer("strides", stride) for stride in require_items("strides", strides)]
    if (len(sizes), len(steps)) != (2, 3) or any(
        size % 2 == 0 or size < step for size, step in zip(sizes, steps[::2], strict=True)
    ):
        raise ValueError(
            "expected three strides and two odd kernel sizes, of at least the first and the last stride, "
            f"got kernel_sizes={kernel_sizes} and strides={strides}"
        )
    _require_ends(in_type, out_type, norm)
    channels = require_integer("hidden_channels", hidden_channels)
    hidden = FieldType(out_type.gspace, [out_type.representations[0]] * channels)
    return SequentialModule(
        _OffsetConvolution(in_type, hidden, sizes[0], stride=steps[0], padding_mode=padding_mode),
        norm(hidden),
        pointwise_of(hidden),
        AntialiasedPooling(hidden, steps[1], steps[1], padding_mode),
        _OffsetConvolution(hidden, out_type, sizes[1], stride=steps[2], padding_mode=padding_mode),
    )


def patch_stem(
    in_type: FieldType, out_type: FieldType, *, patch_size: int = 4, kernel_size: int | None = None, padding_mode: str = "zeros"
) -> SequentialModule:
    """One strided convolution from an image of any size to the tokens of patches, which overlap by default.

    Patches of a vision transformer do not overlap; kernels that end abruptly know the directions of the pixels.

    Args:
        in_type: type of the image.
        out_type: type of the tokens.
        patch_size: pixels from token to token.
        kernel_size: of the convolution, odd; by default about three patches.
        padding_mode: `"zeros"`, or `"circular"` for periodic images.

    Raises:
        TypeError: if a type is not on the plane, or a number no integer.
        ValueError: if a number is not positive, or the kernel size is not odd, or less than the patch.

    Examples:
        >>> from escnn_attn import field_type, fourier_type, patch_stem, planar_gspace
        >>> so2 = planar_gspace("SO2")
        >>> patch_stem(field_type(so2, scalars=3), fourier_type(so2, 4, 2)).evaluate_output_shape((1, 3, 224, 225))
        (1, 20, 56, 57)
    """
    stride = require_integer("patch_size", patch_size)
    size = 3 * stride - 1 + stride % 2 if kernel_size is None else kernel_size
    return SequentialModule(SteerableConvolution(in_type, out_type, size, stride=stride, padding_mode=padding_mode))


def lifting_stem(
    in_type: FieldType,
    out_type: FieldType,
    *,
    hidden_channels: int = 16,
    kernel_size: int = 9,
    strides: Sequence[int] = (2, 2),
    num_heads: int = 4,
    neighborhood: Neighborhood | None = None,
    norm: Callable[[FieldType], EquivariantModule] = SteerableRMSNorm,
) -> SequentialModule:
    """Lifting self-attention from scalars to functions on the group, after a convolution and before pooling.

    The convolution has radial kernels, as equivariant maps of scalars have, so that only attention sees directions: that of
    `LiftingSelfAttention` for a finite group, of `SteerableSelfAttention` for a continuous one.

    Args:
        in_type: type of the image, scalars.
        out_type: type of the tokens, made by `fourier_type`.
        hidden_channels: scalars that are lifted.
        kernel_size: of the convolution, odd.
        strides: of the convolution, and of the pooling, where 1 is no pooling.
        num_heads: of the lifting self-attention.
        neighborhood: the tokens that a token attends to; None for all.
        norm: makes the norm of a type after the convolution.

    Raises:
        TypeError: if a type is not on the plane, or a number no integer.
        ValueError: if a number is not positive, the kernel size is not odd, or there are not two strides.

    Examples:
        >>> from escnn_attn import field_type, fourier_type, lifting_stem, planar_gspace
        >>> d4 = planar_gspace("D4")
        >>> lifting_stem(field_type(d4, scalars=1), fourier_type(d4, 4)).evaluate_output_shape((1, 1, 29, 29))
        (1, 32, 8, 8)
    """
    if require_integer("kernel_size", kernel_size) % 2 == 0:
        raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
    stride, pooling = (require_integer("strides", step) for step in require_items("strides", strides, 2))
    _require_ends(in_type, out_type, norm)
    scalars = field_type(out_type.gspace, scalars=require_integer("hidden_channels", hidden_channels))
    lifting = SteerableSelfAttention if out_type.fibergroup.continuous else LiftingSelfAttention
    return SequentialModule(
        SteerableConvolution(in_type, scalars, kernel_size, stride=stride),
        norm(scalars),
        escnn.nn.ELU(scalars),
        lifting(scalars, out_type, num_heads=num_heads, neighborhood=neighborhood),
        *([AntialiasedPooling(out_type, stride=pooling)] if pooling > 1 else []),
    )


def attends(stem: nn.Module) -> bool:
    """Whether a stem has attention inside, which would have to know masks at its own resolution."""
    return any(isinstance(module, RegularSelfAttention | SteerableAttention) for module in stem.modules())


def _require_ends(in_type: FieldType, out_type: FieldType, norm: object) -> None:
    """Raises a TypeError for types that are not on the plane, and for a norm that makes none."""
    require_planar(in_type)
    require_planar(out_type, "out_type")
    require_factory("norm", norm, "EquivariantModule")


def pointwise_of(hidden: FieldType) -> EquivariantModule:
    return FourierGELU(hidden) if hidden.fibergroup.continuous else escnn.nn.ELU(hidden)
