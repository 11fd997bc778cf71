"""Heads of functions on the group: what self- and cross-attention share."""

import math
from collections.abc import Callable

import torch
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.fields.types import IsotypicLayout, Multiplicities, require_planar, spectral_type
from escnn_attn.fields.types import max_frequency as highest_frequency
from escnn_attn.functional.attention import Features
from escnn_attn.nn.dropout import SteerableDropout
from escnn_attn.nn.linear import IsotypicLinear
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.neighborhood._patterns import AttentionPattern
from escnn_attn.nn.neighborhood.neighborhoods import Neighborhood, attention_pattern, require_neighborhood
from escnn_attn.nn.position.rotary import PositionEmbedding
from escnn_attn.tokens.tokens import Tokens

PositionFactory = Callable[[FieldType, int], PositionEmbedding]


class SteerableAttention(TokenModule):
    """What self- and cross-attention share: heads of functions on the group, from projected queries, keys and values on.

    A subclass makes the linear maps, to queries, keys and values, and `project_out`.

    Args:
        in_type: type of the queries' tokens.
        context_type: type of the tokens attended to.
        out_type: type of the output.
        num_heads, head_channels, max_frequency, position, neighborhood, dropout: see `SteerableSelfAttention`.
    """

    project_out: IsotypicLinear

    def __init__(
        self,
        in_type: FieldType,
        context_type: FieldType,
        out_type: FieldType,
        *,
        num_heads: int,
        head_channels: int | None,
        max_frequency: int | None,
        position: PositionFactory,
        neighborhood: Neighborhood | None,
        dropout: float,
    ) -> None:
        super().__init__(in_type, out_type)
        if require_planar(context_type) != in_type.gspace:
            raise TypeError(f"expected types on one gspace, got {in_type.gspace} and {context_type.gspace}")
        if max_frequency is None:
            max_frequency = highest_frequency(in_type, context_type, out_type)
        function = IsotypicLayout(spectral_type(in_type.gspace, 1, max_frequency))
        head_channels = require_heads(num_heads, head_channels, in_type.size / function.size)
        self.num_heads, self.channels, self.neighborhood = num_heads, head_channels, require_neighborhood(neighborhood)
        self.copies = function.multiplicities
        self.scale = (head_channels * function.size) ** -0.5
        #: multiplicities of the irreps in the functions of all heads
        self.wide = {irrep: m * num_heads * head_channels for irrep, m in function.multiplicities.items()}
        if isinstance(position, nn.Module) or not callable(position):
            raise TypeError(f"expected a PositionEmbedding class, or a functools.partial of one, got {position!r}")
        self.position = position(spectral_type(in_type.gspace, head_channels, max_frequency), num_heads)
        self.gain = nn.Parameter(torch.full((num_heads,), self.position.initial_gain))
        self.dropout = SteerableDropout(self.out_type, dropout)

    def _projection(self, inputs: Multiplicities, count: int) -> IsotypicLinear:
        """The linear map from a type to `count` sets of functions, such as keys and values."""
        outputs = {irrep: count * m for irrep, m in self.wide.items()}
        return IsotypicLinear(self.in_type.fibergroup, inputs, outputs, functions_out=self.copies)

    def _output_map(self) -> IsotypicLinear:
        """The linear map from the functions of all heads to the output."""
        return IsotypicLinear(self.in_type.fibergroup, self.wide, self.out_layout.multiplicities, functions_in=self.copies)

    def _functions(self, projected: Features, count: int) -> list[Tensor]:
        """What `_projection` gave, as `count` tensors of coefficients (b, h, t, c, r)."""
        parts = projected[0].unflatten(-1, (count, self.num_heads, self.channels)).unbind(3)
        return [part.permute(0, 3, 1, 4, 2) for part in parts]

    def prepare(self, tokens: Tokens) -> None:
        """Leaves with the tokens all that self-attention takes from their positions: the rest can be compiled."""
        pattern = attention_pattern(self.neighborhood, tokens, tokens, tokens.edges)
        tokens.shared[self.position] = self._bind(tokens, tokens, pattern)

    def _bind(self, query: Tokens, context: Tokens, pattern: AttentionPattern) -> PositionEmbedding:
        if self.position in query.shared:
            return query.shared[self.position]
        key = None if query.key is None or context.key is None else (query.key, context.key)
        return self.position.bind(query.positions, context.positions, pattern.distance, key)

    def _mix(self, query: Tokens, context: Tokens, functions: list[Tensor], edges: Tensor | None) -> Tokens:
        """Attention of queries to a context, given q, k and v: the layer after its first linear maps."""
        q, k, v = functions
        dtype = v.dtype
        pattern = attention_pattern(self.neighborhood, query, context, edges)
        position, x, y = self._bind(query, context, pattern), query.positions, context.positions
        mixed = []
        for heads, part in position.parts():
            encoded = part.encode_query(q[:, heads], x), part.encode_key(k[:, heads], y), part.encode_value(v[:, heads], y)
            mixed.append(part.decode(pattern.attend(*encoded, self.scale, part.bias), x))
        out = (mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)).to(dtype)
        scaled = out.permute(0, 2, 4, 1, 3) * self.gain[:, None].to(dtype)
        features = self.project_out((scaled.flatten(3),))
        reached = pattern.reached()
        if reached is not None:
            features = tuple(f.masked_fill(~reached[..., None], 0) for f in features)
        return self.dropout(query.with_features(features))

    def _weights(self, query: Tokens, context: Tokens, functions: list[Tensor], edges: Tensor | None) -> Tensor:
        q, k = functions[:2]
        pattern = attention_pattern(self.neighborhood, query, context, edges)
        position = self._bind(query, context, pattern)
        q, k = position.encode_query(q, query.positions), position.encode_key(k, context.positions)
        return pattern.weights(q, k, self.scale, position.bias)


def require_heads(num_heads: int, head_channels: int | None, width: float) -> int:
    """The channels of a head: an even number, by default as many as give `num_heads` heads the width of so many fields.

    Raises:
        ValueError: if there are no heads, or the channels of one cannot be paired.
    """
    if num_heads < 1:
        raise ValueError(f"num_heads must be at least 1, got {num_heads}")
    if head_channels is None:
        channels = math.ceil(width / num_heads)
        return max(2, channels + channels % 2)
    if head_channels < 2 or head_channels % 2:
        raise ValueError(f"head_channels must be even and at least 2 (channels are paired), got {head_channels}")
    return head_channels
