"""U-Nets of escnn's steerable convolutions, from fields on a grid to fields on the same grid."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import escnn.nn
import torch
from escnn.group import GroupElement
from escnn.gspaces import GSpace
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn
from typing_extensions import Self

from escnn_attn.arguments import require_factory, require_flag, require_instance, require_integer
from escnn_attn.compat import change_of_mode, made_by_escnn, tend_filters
from escnn_attn.fields import as_field_type, fourier_type, planar_gspace
from escnn_attn.fields.types import Fields
from escnn_attn.models.network import MAX_FREQUENCY
from escnn_attn.models.published import PretrainedNetwork
from escnn_attn.models.stems import pointwise_of
from escnn_attn.nn.norm import SteerableBatchNorm
from escnn_attn.testing import check_equivariance
from escnn_attn.tokens import require_input

NormFactory = Callable[[FieldType], EquivariantModule]


class SteerableUNet(PretrainedNetwork, EquivariantModule):
    r"""A U-Net of steerable convolutions (Ronneberger et al., 2015, for plain ones) from fields to fields of the same height and width.

    Each level has half the pixels along a side of the level before, and twice the channels. A level is a residual block on the
    way down, $x + \mathrm{conv}(\sigma(\mathrm{norm}(\mathrm{conv}(\sigma(\mathrm{norm}(x))))))$, and another on the way up, of the two together. Halving is by convolutions of
    4 × 4 pixels, which keep the rotation center of even sides, and doubling by nearest neighbors, which keeps any. So the network is
    equivariant exactly under quarter turns (and the flips in the group), and, where `periodic`, under cyclic shifts by multiples of
    2^depth pixels. With `group="trivial"` it is a plain U-Net.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_type: fields of the input: a number of scalar channels, a mapping such as `{"vectors": 1}` (see `field_type`), or a
            field type.
        out_fields: fields of the output, given likewise.
        channels: width of the first level, in functions on the group.
        max_frequency: band limit L of the functions, for continuous groups alone; 3 by default.
        depth: number of halvings.
        periodic: whether opposite borders of the grid meet.
        norm: makes the norm of a type; None for batch norms of escnn.

    Shape:
        (b, c, height, width), as a tensor or a geometric tensor of `in_type`, to a geometric tensor (b, c', height, width); height and
        width are multiples of 2^depth.

    Raises:
        TypeError: for types that are not on the gspace, and input of another type or dtype.
        ValueError: for a max_frequency of a finite group, and for grids of another shape.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableUNet
        >>> model = SteerableUNet("D4", in_type={"vectors": 1}, out_fields={"vectors": 1}, channels=2, depth=1)
        >>> model(torch.randn(1, 2, 16, 24)).shape
        torch.Size([1, 2, 16, 24])
    """

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_type: Fields = 1,
        out_fields: Fields = 1,
        channels: int = 8,
        max_frequency: int | None = None,
        depth: int = 3,
        periodic: bool = True,
        norm: NormFactory | None = None,
    ) -> None:
        super().__init__()
        gspace = planar_gspace(group) if isinstance(group, str) else require_instance("group", group, GSpace)
        self.in_type, self.out_type = as_field_type(gspace, in_type), as_field_type(gspace, out_fields, "out_fields")
        self.depth, self.periodic = require_integer("depth", depth, 0), require_flag("periodic", periodic)
        types = _level_types(gspace, require_integer("channels", channels), max_frequency, self.depth)
        make_norm = _batch_norm if norm is None else require_factory("norm", norm, "EquivariantModule")
        made_by_escnn(lambda: self._make(types, make_norm))
        tend_filters(self)

    def _make(self, types: list[FieldType], norm: NormFactory) -> EquivariantModule:
        """Makes the layers; each list goes from the finest level to the coarsest."""

        def convolution(from_type: FieldType, to_type: FieldType, kernel_size: int = 3, stride: int = 1) -> EquivariantModule:
            mode, padding = "circular" if self.periodic else "zeros", (kernel_size - 1) // 2
            made = escnn.nn.R2Conv(from_type, to_type, kernel_size, padding=padding, stride=stride, padding_mode=mode)
            # escnn shares kernel bases between all convolutions of the process: .double() on one network would break others
            return copy.deepcopy(made)

        def block(t: FieldType) -> EquivariantModule:
            return ResidualBlock(norm(t), pointwise_of(t), convolution(t, t), norm(t), pointwise_of(t), convolution(t, t))

        pairs = list(pairwise(types))
        self.first = convolution(self.in_type, types[0])
        self.blocks_down = nn.ModuleList(block(t) for t in types)
        self.halvings = nn.ModuleList(convolution(fine, coarse, 4, stride=2) for fine, coarse in pairs)
        self.narrowings = nn.ModuleList(convolution(coarse, fine, 1) for fine, coarse in pairs)
        self.doublings = nn.ModuleList(escnn.nn.R2Upsampling(fine, 2, mode="nearest") for fine, _ in pairs)
        self.joins = nn.ModuleList(convolution(fine + fine, fine) for fine, _ in pairs)
        self.blocks_up = nn.ModuleList(block(fine) for fine, _ in pairs)
        self.last = convolution(types[0], self.out_type)
        return self

    def forward(self, x: Tensor | GeometricTensor) -> GeometricTensor:  # pyright: ignore[reportIncompatibleMethodOverride] (of None)
        """Fields of `out_type` at each pixel."""
        x = self._require_grid(x)
        levels = [self.blocks_down[0](self.first(x))]
        for halving, block in zip(self.halvings, self.blocks_down[1:], strict=True):
            levels.append(block(halving(levels[-1])))
        x = levels.pop()
        for index in reversed(range(self.depth)):
            above = self.doublings[index](self.narrowings[index](x))
            both = torch.cat([levels.pop().tensor, above.tensor], dim=1)
            x = self.blocks_up[index](self.joins[index](GeometricTensor(both, cast(FieldType, self.joins[index].in_type))))
        return self.last(x)

    def _require_grid(self, x: Tensor | GeometricTensor) -> GeometricTensor:
        if isinstance(x, Tensor):
            if x.dim() != 4 or x.shape[1] != self.in_type.size:
                raise ValueError(
                    f"expected fields (b, {self.in_type.size}, height, width), or a GeometricTensor, got a tensor {tuple(x.shape)}"
                )
            x = GeometricTensor(x, self.in_type)
        shape = require_input(x, self.in_type, self).tensor.shape
        if len(shape) != 4 or any(side % 2**self.depth for side in shape[2:]):
            raise ValueError(
                f"expected a grid whose height and width are multiples of {2**self.depth}, for {self.depth} halvings, got a tensor {tuple(shape)}"
            )
        return x

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (input_shape[0], self.out_type.size, *input_shape[2:])

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks quarter turns and flips of grids; see `PlanarModule.check_equivariance`."""
        return check_equivariance(self, rtol, domain="grid")

    def train(self, mode: bool = True) -> Self:
        with change_of_mode(self):
            return super().train(mode)

    def extra_repr(self) -> str:
        return f"in_type={self.in_type}, out_type={self.out_type}, depth={self.depth}, periodic={self.periodic}"


class ResidualBlock(escnn.nn.SequentialModule):
    """Adds to a field what a chain of modules makes of it."""

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        return input + super().forward(input)


def _batch_norm(t: FieldType) -> EquivariantModule:
    # that of regular fields has gradients of its statistics, as had the trainings of docs/flows.md
    return (SteerableBatchNorm if t.fibergroup.continuous else escnn.nn.InnerBatchNorm)(t)


def _level_types(gspace: GSpace, channels: int, max_frequency: int | None, depth: int) -> list[FieldType]:
    """Functions on the group, twice as many on each level as on the one before."""
    continuous = gspace.fibergroup.continuous
    limit = MAX_FREQUENCY if continuous and max_frequency is None else max_frequency
    if limit is not None and not continuous:
        raise ValueError(f"max_frequency is for continuous groups: leave it out for {gspace.fibergroup}, got {max_frequency!r}")
    return [fourier_type(gspace, channels * 2**level, limit) for level in range(depth + 1)]
