"""Steerable attention to a context."""

from collections.abc import Sequence

from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from typing_extensions import Unpack

from escnn_attn.nn.attention.core import Heads, SteerableAttention
from escnn_attn.nn.context import ContextModule, ContextOptions
from escnn_attn.nn.neighborhood import Neighborhood
from escnn_attn.nn.position import PositionFactory, RotaryEmbedding
from escnn_attn.tokens import Tokens


class SteerableCrossAttention(SteerableAttention, ContextModule):
    r"""Multi-head attention of one set of tokens to another: of another type, resolution or domain.

    The formula is that of `SteerableSelfAttention`, with queries from `x`, keys and values from `context`. Either may be a
    grid or flattened clouds, such as points that attend to an image. A grid has the origin at its center, and
    `spacing` (`context_spacing`) is the distance between its tokens, in the units of the other's coordinates: for tokens after
    a stride of 2 beside the full grid, 2. Queries whose keys are all masked get zeros.

    Args:
        in_type: any field type on the plane.
        context_type: type of the context, on the same gspace.
        out_type: type of the output; None for `in_type`.
        num_heads: number of heads.
        head_channels: functions per head, as in `SteerableSelfAttention`.
        max_frequency: band limit of the functions, as there.
        position: a `PositionEmbedding` class or `functools.partial` of one, as there.
        neighborhood: the tokens of the context that a token attends to; None for all.
        dropout: probability of dropping a field of the output in training, in [0, 1).

    Shape:
        x (b, in_type.size, height, width) or (points, in_type.size), context (b, context_type.size, height', width') or
        (points', context_type.size), to x with out_type.size channels.

    Raises:
        TypeError: if the types are not on one planar gspace, or `position` or `neighborhood` is of another type.
        ValueError: if num_heads < 1, head_channels is odd or less than 2, or dropout is not in [0, 1).

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableCrossAttention, fourier_type, planar_gspace
        >>> so2 = planar_gspace("SO2")
        >>> points, image = fourier_type(so2, 4, 1), fourier_type(so2, 2, 2)
        >>> attention = SteerableCrossAttention(points, image, num_heads=2)
        >>> attention(points(torch.randn(6, 12), torch.randn(6, 2)), image(torch.randn(1, 10, 9, 9))).shape
        torch.Size([6, 12])
    """

    def __init__(
        self,
        in_type: FieldType,
        context_type: FieldType,
        out_type: FieldType | None = None,
        *,
        num_heads: int,
        head_channels: int | None = None,
        max_frequency: int | None = None,
        position: PositionFactory = RotaryEmbedding,
        neighborhood: Neighborhood | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_type, context_type, in_type if out_type is None else out_type)
        heads = Heads.of([in_type, context_type, self.out_type], num_heads, head_channels, max_frequency)
        self.project_query = heads.project(self.in_layout.irreps, 1)
        self.project_context = heads.project(self.context_layout.irreps, 2)
        self.make_heads(heads, position, neighborhood, dropout)

    def queries_and_context(self, tokens: Tokens, context: Tokens) -> Sequence[Tensor]:
        query, context_functions = self.project_query(tokens.features), self.project_context(context.features)
        return self.heads.functions(query), self.heads.functions(context_functions)

    def forward_tokens(self, tokens: Tokens, context: Tokens) -> Tokens:
        return self.attend(tokens, context)

    def attention_weights(self, x: GeometricTensor, context: GeometricTensor, **options: Unpack[ContextOptions]) -> Tensor:
        """The attention weights (b, h, t, s), for inspection: unlike `forward`, this stores tokens².

        The arguments are those of `forward`.
        """
        return self.token_weights(*self.tokens(x, context, **options))
