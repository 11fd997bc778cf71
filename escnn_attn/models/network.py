"""Base classes of whole networks: stem, transformer blocks, and a read-out of logits or of fields."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from escnn.gspaces import GSpace
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from escnn_attn.arguments import require_factory, require_instance, require_integer
from escnn_attn.compat import change_of_mode, made_by_escnn, tend_filters
from escnn_attn.fields import as_field_type, fourier_type, planar_gspace, require_planar
from escnn_attn.fields.types import Fields
from escnn_attn.models._export import PlainFields, PlainPooling
from escnn_attn.models.block import SteerableStack
from escnn_attn.models.factories import steerable_block
from escnn_attn.models.published import PretrainedNetwork
from escnn_attn.models.pyramid import SteerablePyramid
from escnn_attn.nn.linear import SteerableLinear
from escnn_attn.nn.modules import TakesDomain, TokenModule
from escnn_attn.nn.norm import SteerableRMSNorm
from escnn_attn.nn.pooling import InvariantPooling
from escnn_attn.tokens import DomainOptions, Tokens, in_similar_sizes

#: band limit of networks on continuous groups, where none is given
MAX_FREQUENCY = 3

BlockFactory = Callable[[FieldType], TokenModule]
StemFactory = Callable[[FieldType, FieldType], EquivariantModule]


class Body(NamedTuple):
    """A network without its read-out."""

    in_type: FieldType
    stem: EquivariantModule
    blocks: SteerableStack | SteerablePyramid


def make_body(
    group: str | GSpace,
    in_type: Fields,
    channels: int,
    max_frequency: int | None,
    depth: int,
    block: BlockFactory | None,
    stem: StemFactory,
    checkpointing: bool,
) -> Body:
    """A stem, `depth` blocks and a norm; the arguments are those of `SteerableTransformer`."""
    gspace = gspace_of(group)
    continuous = gspace.fibergroup.continuous
    if max_frequency is not None and not continuous:
        raise ValueError(
            f"max_frequency is for continuous groups: functions on {gspace.fibergroup} have a value per element; leave it out, got {max_frequency!r}"
        )
    depth = require_integer("depth", depth, 0)
    token_type = fourier_type(gspace, channels, MAX_FREQUENCY if continuous and max_frequency is None else max_frequency)
    require_planar(token_type)
    fields = as_field_type(gspace, in_type)
    require_factory("stem", stem, "EquivariantModule")
    made = made_by_escnn(lambda: require_instance("stem", stem(fields, token_type), EquivariantModule))
    make = require_factory("block", steerable_block if block is None else block, "TokenModule")
    blocks = [make(token_type) for _ in range(depth)]
    return Body(fields, made, SteerableStack([*blocks, SteerableRMSNorm(token_type)], checkpointing=checkpointing))


def gspace_of(group: str | GSpace) -> GSpace:
    """A gspace, or that of a group by its name."""
    return planar_gspace(group) if isinstance(group, str) else require_instance("group", group, GSpace)


class SteerableNetwork(PretrainedNetwork, EquivariantModule, TakesDomain):
    """Base class: a stem and transformer blocks on tokens.

    A subclass defines `embed`, and calls a method of a read-out.

    Args:
        body: stem and blocks.
    """

    in_type: FieldType
    out_type: FieldType
    blocks: Any  # a SteerableStack or a SteerablePyramid, as subclasses say
    forward: Callable[..., Any]

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.in_type, self.stem, self.blocks = body
        tend_filters(self)

    @abstractmethod
    def embed(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> Tokens:
        """The tokens that enter the first block; the arguments are those of `forward`."""

    def encode(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> Tokens:
        """The tokens after the last block and the final norm; the arguments are those of `forward`."""
        return self.blocks(self.embed(x, **options))

    @abstractmethod
    def plain_readout(self) -> nn.Module:
        """The read-out, from tokens to a plain tensor."""

    def compile(self, **options: Any) -> None:
        """Compiles the transformer blocks (see `SteerableStack.compile`)."""
        self.blocks.compile(**options)

    def train(self, mode: bool = True) -> Self:
        with change_of_mode(self):
            return super().train(mode)


class LogitReadout(SteerableNetwork):
    """Base class of networks that give logits: invariants of a sample, and a linear map of them."""

    def make_readout(self, num_classes: int, least: int = 1) -> None:
        """Makes pooling and linear map, which for no classes is the identity; a ValueError for less than the least number."""
        num_classes = require_integer("num_classes", num_classes, least)
        self.pool = InvariantPooling(self.blocks.out_type)
        count = self.pool.out_type.size
        self.readout = nn.Linear(count, num_classes) if num_classes else nn.Identity()
        space = self.pool.out_type.gspace
        self.out_type = FieldType(space, [space.trivial_repr] * (num_classes or count))

    def plain_readout(self) -> nn.Module:
        return nn.Sequential(PlainPooling(self.pool), self.readout)

    @in_similar_sizes
    def forward(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> Tensor:
        """Logits (b, num_classes); the arguments are those of `TokenModule.forward`."""
        return self.readout(self.invariants(x, **options))

    def invariants(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> Tensor:
        """The pooled invariants (b, c) that the logits are read from; the arguments are those of `forward`."""
        return self.pool(self.encode(x, **options))

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(b, num_classes); for points the number of clouds is not in the shape, and 1 is assumed."""
        return (input_shape[0] if len(input_shape) == 4 else 1, self.out_type.size)


class FieldReadout(SteerableNetwork):
    """Base class of networks that give fields at each token, by an equivariant linear map."""

    def make_readout(self, out_fields: Fields) -> None:
        """Makes the linear map."""
        token_type = self.blocks.out_type
        self.readout = SteerableLinear(token_type, as_field_type(token_type.gspace, out_fields, "out_fields"))
        self.out_type = self.readout.out_type

    def plain_readout(self) -> nn.Module:
        return PlainFields(self.readout)

    @in_similar_sizes
    def forward(self, x: Tensor | GeometricTensor, **options: Unpack[DomainOptions]) -> GeometricTensor:
        """Fields of `out_type` at each token; the arguments are those of `TokenModule.forward`."""
        tokens = self.readout(self.encode(x, **options))
        return tokens.geometric(self.out_type, self.readout.out_layout)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (input_shape[0], self.out_type.size, *self.stem.evaluate_output_shape(input_shape)[2:])
