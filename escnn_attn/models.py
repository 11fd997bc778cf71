"""Whole networks, built from plain numbers and names."""

import copy
import math
from collections.abc import Callable, Sequence

import escnn.nn
import torch
from escnn.group import GroupElement
from escnn.gspaces import GSpace
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn.attention import Position, SteerableSelfAttention
from escnn_attn.base import TokenModule
from escnn_attn.compat import one_state_dict
from escnn_attn.feedforward import BilinearFeedForward
from escnn_attn.fields import fourier_type, planar_gspace, require_planar
from escnn_attn.fields import max_frequency as max_frequency_of
from escnn_attn.norm import SteerableRMSNorm
from escnn_attn.pooling import InvariantPooling
from escnn_attn.positions import RotaryEmbedding
from escnn_attn.testing import assert_equivariant
from escnn_attn.tokens import disc_tokens, disc_window, grid_tokens, require_type
from escnn_attn.transformer import SteerableStack, SteerableTransformerBlock


def convolution_stem(
    in_type: FieldType,
    out_type: FieldType,
    *,
    kernel_sizes: Sequence[int] = (9, 5),
    strides: Sequence[int] = (2, 2),
    hidden_channels: int | None = None,
) -> escnn.nn.SequentialModule:
    """Steerable convolutions of escnn that turn an image into a coarser grid of Fourier fields.

    Each convolution but the last is followed by a norm and an ELU on samples of the group. A stride keeps the rotation
    centre where it divides the side of the image minus 1, as in 29 to 15 to 8.

    Args:
        in_type: type of the image.
        out_type: type of the tokens, copies of one representation.
        kernel_sizes: one odd number a convolution.
        strides: one number a convolution.
        hidden_channels: fields between the convolutions; None for half as many as in `out_type`.

    Raises:
        ValueError: if the kernel sizes are not odd, or not as many as the strides.
    """
    if not kernel_sizes or len(kernel_sizes) != len(strides) or any(k % 2 == 0 for k in kernel_sizes):
        raise ValueError(f"expected as many odd kernel sizes as strides, got {kernel_sizes} and {strides}")
    channels = max(1, len(out_type) // 2) if hidden_channels is None else hidden_channels
    hidden = FieldType(out_type.gspace, [out_type.representations[0]] * channels)
    layers: list[EquivariantModule] = []
    types = [in_type, *[hidden] * (len(strides) - 1), out_type]
    for index, (size, stride) in enumerate(zip(kernel_sizes, strides, strict=True)):
        if index:
            layers += [SteerableRMSNorm(hidden), _pointwise(hidden)]
        convolution = escnn.nn.R2Conv(types[index], types[index + 1], size, stride=stride, padding=size // 2)
        # escnn shares kernel bases between all convolutions of the process: .double() on one network would break others
        layers.append(copy.deepcopy(convolution))
    return escnn.nn.SequentialModule(*layers)


def _pointwise(field_type: FieldType) -> EquivariantModule:
    group, limit = field_type.fibergroup, max_frequency_of(field_type)
    if not group.continuous:
        return escnn.nn.ELU(field_type)
    irreps = list(dict.fromkeys(field_type.representations[0].irreps))
    return escnn.nn.FourierELU(field_type.gspace, len(field_type), irreps, type="regular", N=max(16, 4 * limit))


class SteerableTransformer(EquivariantModule):
    r"""An image classifier: steerable convolution stem, transformer blocks, invariant pooling, linear read-out.

    Equivariance makes the logits invariant: exactly under quarter turns (and the flips in the group), and, as far as
    pixels allow, under all rotations. Only the largest centred disc counts, of the image and of the tokens: the corners
    of a square do not rotate into it. With `group="trivial"` the same code is a plain transformer.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_channels: channels of the image.
        classes: number of logits.
        channels: width, in functions on the group.
        max_frequency: band limit L of the functions, for continuous groups.
        depth: number of blocks.
        block: makes a block of a type: `steerable_block`, or `functools.partial` of it or of another factory.
        stem: makes the stem of the image type and the token type: `convolution_stem`, or a partial of it or another.

    Shape:
        images (b, in_channels, h, w), as a tensor or a geometric tensor of `in_type`, to logits (b, classes); h − 1 and
        w − 1 must be multiples of the strides of the stem (of 4, by default), unless the group is trivial.

    Raises:
        ValueError: for images of a shape with which strides would lose the rotation centre, naming the next that will do.

    Example:
        >>> import torch
        >>> from escnn_attn import SteerableTransformer
        >>> model = SteerableTransformer("SO2", channels=4, max_frequency=1, depth=1)
        >>> model(torch.randn(2, 1, 29, 29)).shape
        torch.Size([2, 10])
    """

    in_type: FieldType
    out_type: FieldType

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_channels: int = 1,
        classes: int = 10,
        channels: int = 16,
        max_frequency: int = 3,
        depth: int = 3,
        block: Callable[[FieldType], TokenModule] | None = None,
        stem: Callable[[FieldType, FieldType], EquivariantModule] | None = None,
    ) -> None:
        super().__init__()
        gspace = planar_gspace(group) if isinstance(group, str) else group
        limit = max_frequency if gspace.fibergroup.continuous else None
        token_type = fourier_type(gspace, channels, limit)
        require_planar(token_type)
        self.in_type = FieldType(gspace, [gspace.trivial_repr] * in_channels)
        self.stem = (stem or convolution_stem)(self.in_type, token_type)
        blocks = [(block or steerable_block)(token_type) for _ in range(depth)]
        self.blocks = SteerableStack([*blocks, SteerableRMSNorm(token_type)])
        self.pool = InvariantPooling(token_type)
        self.classifier = nn.Linear(self.pool.out_type.size, classes)
        self.out_type = FieldType(self.pool.out_type.gspace, [self.pool.out_type.gspace.trivial_repr] * classes)
        one_state_dict(self)

    def forward(self, images: Tensor | GeometricTensor) -> Tensor:
        return self.classifier(self.invariants(images))

    def invariants(self, images: Tensor | GeometricTensor) -> Tensor:
        """The pooled invariants (b, c) that the classifier reads."""
        if isinstance(images, Tensor):
            if images.dim() != 4 or images.shape[1] != self.in_type.size:
                raise ValueError(f"expected images (b, {self.in_type.size}, h, w), got {tuple(images.shape)}")
            images = GeometricTensor(images, self.in_type)
        tensor = require_type(images, self.in_type).tensor
        self._require_centred(*tensor.shape[2:])
        x = self.stem(GeometricTensor(tensor * disc_window(*tensor.shape[2:]).to(tensor), self.in_type))
        tokens = disc_tokens(grid_tokens(x.tensor, self.blocks.in_layout))
        return self.pool.pool_tokens(self.blocks.forward_tokens(tokens))

    def _require_centred(self, *sides: int) -> None:
        """Raises a ValueError where the stem's strides would move the rotation centre off the coarser grid."""
        strides = (m.stride for m in self.stem.modules() if isinstance(m, escnn.nn.R2Conv))
        step = math.prod(s if isinstance(s, int) else s[0] for s in strides)
        if self.in_type.fibergroup.order() != 1 and any((side - 1) % step for side in sides):
            fitting = " × ".join(str(side + (1 - side) % step) for side in sides)
            raise ValueError(
                f"images of {' × '.join(map(str, sides))} lose their rotation centre under the strides of the stem "
                f"({step} in all): pad them to {fitting}"
            )

    def train(self, mode: bool = True) -> "SteerableTransformer":
        # as in SequentialModule: filters are expanded as constants
        with torch.no_grad():
            return super().train(mode)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, int]:
        return (input_shape[0], self.out_type.size)

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks that quarter turns and flips, as far as the group has them, leave the logits within `rtol`."""
        return assert_equivariant(self, size=29, tolerance=rtol)


def steerable_block(
    field_type: FieldType,
    *,
    heads: int = 4,
    feedforward: Callable[[FieldType], TokenModule] = BilinearFeedForward,
    position: Position = RotaryEmbedding,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> SteerableTransformerBlock:
    """A pre-norm block of self-attention and the given feed-forward layer."""
    attention = SteerableSelfAttention(field_type, heads=heads, position=position, dropout=dropout)
    return SteerableTransformerBlock(attention, feedforward(field_type), drop_path=drop_path)
