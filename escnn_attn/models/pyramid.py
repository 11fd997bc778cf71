"""Transformer stages on coarser and coarser grids: the body of backbones."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from escnn.gspaces import GSpace
from escnn.nn import EquivariantModule, FieldType
from torch import Tensor, nn

from escnn_attn.arguments import require_factory, require_instance, require_integer, require_items, require_positive
from escnn_attn.fields import IsotypicLayout, fourier_type
from escnn_attn.models.block import SteerableStack
from escnn_attn.models.factories import steerable_block
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.neighborhood import Disc
from escnn_attn.nn.norm import SteerableRMSNorm
from escnn_attn.nn.resampling import PatchMerging
from escnn_attn.tokens import Tokens


@dataclass(frozen=True)
class Stage:
    """A stage of a backbone: blocks on one grid, after a strided convolution to it.

    Attributes:
        channels: width, in functions on the group.
        depth: number of blocks.
        num_heads: of the attention.
        stride: tokens of the stage before (pixels, for the first) from token to token.
        radius: of the discs in which tokens attend, in tokens of the stage; None for all tokens.
        max_frequency: band limit of the functions, for continuous groups alone.
        kernel_size: of the convolution, odd; by default about three times the stride for the first stage, and 5 for others.

    Raises:
        TypeError: if a number is none.
        ValueError: if a number is out of its range.

    Examples:
        >>> from escnn_attn import Stage
        >>> Stage(channels=8, depth=2, num_heads=2, stride=4, radius=3.5).max_frequency
        3
    """

    channels: int
    depth: int
    num_heads: int = 1
    stride: int = 2
    radius: float | None = None
    max_frequency: int = 3
    kernel_size: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("depth", 1), ("num_heads", 1), ("stride", 1), ("max_frequency", 0)):
            require_integer(name, getattr(self, name), least)
        for name, require in (("radius", require_positive), ("kernel_size", require_integer)):
            if getattr(self, name) is not None:
                require(name, getattr(self, name))

    def field_type(self, gspace: GSpace) -> FieldType:
        """The type of the tokens."""
        return fourier_type(gspace, self.channels, self.max_frequency if gspace.fibergroup.continuous else None)

    def stack(self, field_type: FieldType, block: Callable[..., TokenModule], checkpointing: bool) -> SteerableStack:
        """The blocks."""
        neighborhood = None if self.radius is None else Disc(self.radius)
        make = require_factory("block", block, "TokenModule")
        blocks = [make(field_type, num_heads=self.num_heads, neighborhood=neighborhood) for _ in range(self.depth)]
        return SteerableStack(blocks, checkpointing=checkpointing)


def _sizes(channels: int, depths: Sequence[int]) -> tuple[Stage, ...]:
    """Strides of 4, 8, 16 and 32 pixels, attention in discs on the finer two grids; widths that double."""
    return (
        Stage(channels, depths[0], num_heads=2, stride=4, radius=3.5, max_frequency=2),
        Stage(2 * channels, depths[1], num_heads=4, radius=3.5),
        Stage(4 * channels, depths[2], num_heads=4),
        Stage(8 * channels, depths[3], num_heads=8),
    )


#: stages of backbones by name: about 1, 5 and 20 million parameters
STAGES = {"tiny": _sizes(8, (2, 2, 2, 2)), "small": _sizes(16, (2, 2, 6, 2)), "base": _sizes(32, (2, 2, 6, 2))}


def stages_of(stages: str | Sequence[Stage | Mapping[str, Any]]) -> list[Stage]:
    """Stages by name, or as they are, or as mappings of their attributes."""
    if isinstance(stages, str):
        if stages not in STAGES:
            raise ValueError(
                f"expected stages to be one of {', '.join(map(repr, STAGES))}, or a list of stages, got {stages!r}"
            )
        return list(STAGES[stages])
    found = [Stage(**stage) if isinstance(stage, Mapping) else stage for stage in require_items("stages", stages)]
    return [require_instance("stages", stage, Stage) for stage in found]


class SteerablePyramid(EquivariantModule):
    """Stacks of transformer blocks, strided convolutions to coarser grids between them, and a norm at the end.

    There is none between stages: a norm magnifies tokens that are nearly zero, so that what it gives is not smooth.

    Args:
        stages: what they consist of.
        gspace: of the tokens.
        block: makes a block of a type, `num_heads` and a `neighborhood`: `steerable_block`, or a partial of it or of another
            factory.
        checkpointing: whether blocks are computed again for the gradient, in less memory.
    """

    in_type: FieldType
    out_type: FieldType
    __call__: Callable[[Tokens], Tokens]

    def __init__(
        self,
        stages: Sequence[Stage],
        gspace: GSpace,
        block: Callable[..., TokenModule] = steerable_block,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.types = [stage.field_type(gspace) for stage in stages]
        self.in_type, self.out_type = self.types[0], self.types[-1]
        stacks = [stage.stack(t, block, checkpointing) for stage, t in zip(stages, self.types, strict=True)]
        mergings = [
            PatchMerging(*types, stride=stage.stride, kernel_size=stage.kernel_size or 5)
            for types, stage in zip(pairwise(self.types), stages[1:], strict=True)
        ]
        self.mergings, self.stacks = nn.ModuleList(mergings), nn.ModuleList(stacks)
        self.norm = SteerableRMSNorm(self.out_type)
        self.strides = [stage.stride for stage in stages]
        #: pixels from token to token of each stage
        self.reductions = list(accumulate(self.strides, operator.mul))

    @property
    def layouts(self) -> list[IsotypicLayout]:
        """Of the tokens of each stage."""
        return [stack.out_layout for stack in self._stacks()]

    @property
    def in_layout(self) -> IsotypicLayout:
        return self._stacks()[0].in_layout

    def _stacks(self) -> list[SteerableStack]:
        return [stack for stack in self.stacks if isinstance(stack, SteerableStack)]

    def forward(self, tokens: Tokens) -> Tokens:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The tokens of the last stage, after the norm."""
        return self.norm(self.intermediates(tokens)[-1])

    def intermediates(self, tokens: Tokens) -> list[Tokens]:
        """The tokens of each stage."""
        found = [self.stacks[0](tokens)]
        for merging, stack in zip(self.mergings, self.stacks[1:], strict=True):
            found.append(stack(merging(found[-1])))
        return found

    def plain(self, tokens: Tokens) -> list[Tensor]:
        """What `intermediates` gives, as plain tensors (b, c, height, width)."""
        return [found.plain(layout) for found, layout in zip(self.intermediates(tokens), self.layouts, strict=True)]

    def compile(self, **options: Any) -> None:
        """Compiles the blocks of each stage (see `SteerableStack.compile`)."""
        for stack in self.stacks:
            stack.compile(**options)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        for merging in self.mergings:
            input_shape = merging.evaluate_output_shape(input_shape)  # pyright: ignore[reportCallIssue]
        return input_shape
