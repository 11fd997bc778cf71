"""Transformers of point clouds."""

from escnn.group import GroupElement
from escnn.gspaces import GSpace
from escnn.nn import GeometricTensor
from torch import Tensor, nn
from typing_extensions import Unpack

from escnn_attn.fields.types import Fields
from escnn_attn.models._export import ExportedPointNetwork
from escnn_attn.models.block import SteerableStack
from escnn_attn.models.network import BlockFactory, Body, FieldReadout, LogitReadout, SteerableNetwork, StemFactory, make_body
from escnn_attn.nn.linear import SteerableLinear
from escnn_attn.nn.modules import TakesDomain, TokenModule
from escnn_attn.testing import check_equivariance
from escnn_attn.tokens import Clouds, DomainOptions, Tokens, domain_of, require_input
from escnn_attn.tokens.windows import windows_of


class PointNetwork(SteerableNetwork):
    """Base class of networks of point clouds.

    Args:
        body: stem and blocks; a TypeError for a stem with convolutions.
    """

    blocks: SteerableStack

    def __init__(self, body: Body) -> None:
        if not isinstance(body.stem, TakesDomain) or windows_of(body.stem):
            raise TypeError(f"a {type(body.stem).__name__} as stem takes images, not a cloud: take stem=SteerableLinear")
        super().__init__(body)

    def embed(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> Tokens:
        domain = domain_of(require_input(x, self.in_type, self), **options)
        if not isinstance(domain, Clouds):
            raise TypeError(f"a {type(self).__name__} takes points with coords, not a grid: take a SteerableTransformer")
        return Tokens.on(domain, self.stem(x, **options).tensor, self.blocks.in_layout)

    def export(self) -> nn.Module:
        """A copy in eval mode on plain tensors, which torch exports for any batch and any number of points.

        It maps points (b, points, c), coords (b, points, 2) and mask (b, points), True where a point counts, to logits
        (b, num_classes), or to fields (b, points, c'). `RotaryEmbedding` of a continuous group needs a `max_distance` or a `Disc`; of
        neighborhoods it takes `Disc` and `KNearest`, by a mask over all pairs.

        Raises:
            TypeError: if the stem is no layer on tokens.
        """
        if not isinstance(self.stem, TokenModule):
            raise TypeError(f"expected a layer on tokens as stem, such as SteerableLinear, got a {type(self.stem).__name__}")
        return ExportedPointNetwork(self.stem, self.blocks, self.plain_readout())

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks random elements on a cloud; see `PlanarModule.check_equivariance`."""
        return check_equivariance(self, rtol, domain="points")


class SteerablePointTransformer(FieldReadout, PointNetwork):
    r"""A steerable transformer from points to fields at each point, exactly equivariant up to the tolerance of its layers.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_type: fields of the input: a number of scalar channels, a mapping such as `{"scalars": 1, "vectors": 2}` (see
            `field_type`), or a field type.
        out_fields: fields of the output, in the same ways.
        channels: width, in functions on the group.
        max_frequency: band limit L of the functions, for continuous groups alone; 3 by default.
        depth: number of blocks.
        block: makes a block of a type: `steerable_block`, or `functools.partial` of it or of another factory.
        stem: makes the stem of the input type and the token type: `SteerableLinear`, or another layer on tokens.
        checkpointing: whether blocks are computed again for the gradient, in less memory.

    Shape:
        points (points, c) with coords, to (points, c').

    Raises:
        TypeError: for types that are not on the gspace, and for images.
        ValueError: for a max_frequency of a finite group.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerablePointTransformer
        >>> forces = SteerablePointTransformer("O2", out_fields={"vectors": 1}, channels=4, max_frequency=1, depth=1)
        >>> forces(forces.in_type(torch.randn(7, 1), torch.randn(7, 2))).shape
        torch.Size([7, 2])
    """

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_type: Fields = 1,
        out_fields: Fields,
        channels: int = 16,
        max_frequency: int | None = None,
        depth: int = 3,
        block: BlockFactory | None = None,
        stem: StemFactory = SteerableLinear,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(make_body(group, in_type, channels, max_frequency, depth, block, stem, checkpointing))
        self.make_readout(out_fields)


class SteerablePointClassifier(LogitReadout, PointNetwork):
    r"""A steerable transformer from points to invariant logits of each cloud.

    Args:
        group: name of the group (see `planar_gspace`) or a gspace on the plane.
        in_type: fields of the input, as in `SteerablePointTransformer`.
        num_classes: number of logits.
        channels: width, in functions on the group.
        max_frequency: band limit L of the functions, for continuous groups alone; 3 by default.
        depth: number of blocks.
        block: makes a block of a type, as there.
        stem: makes the stem, as there.
        checkpointing: whether blocks are computed again for the gradient, in less memory.

    Shape:
        points (points, c) with coords, of b clouds, to logits (b, num_classes).

    Raises:
        TypeError: for types that are not on the gspace, and for images.
        ValueError: for a max_frequency of a finite group.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerablePointClassifier
        >>> model = SteerablePointClassifier("SO2", num_classes=3, channels=4, max_frequency=1, depth=1)
        >>> model(model.in_type(torch.randn(7, 1), torch.randn(7, 2)), batch=torch.tensor([0, 0, 0, 0, 1, 1, 1])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        group: str | GSpace,
        *,
        in_type: Fields = 1,
        num_classes: int = 10,
        channels: int = 16,
        max_frequency: int | None = None,
        depth: int = 3,
        block: BlockFactory | None = None,
        stem: StemFactory = SteerableLinear,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(make_body(group, in_type, channels, max_frequency, depth, block, stem, checkpointing))
        self.make_readout(num_classes)
