"""Steerable attention of functions on the group: the formula, and the base class of self- and cross-attention."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.arguments import require_factory, require_instance, require_integer
from escnn_attn.fields import Features, Irreps, IsotypicLayout, max_frequency, spectral_type
from escnn_attn.fields.functions import band_limit
from escnn_attn.nn.dropout import SteerableDropout
from escnn_attn.nn.linear import IsotypicLinear
from escnn_attn.nn.modules import IsotypicModule
from escnn_attn.nn.neighborhood import AttentionPattern, Neighborhood, attention_patterns, require_neighborhood, surroundings
from escnn_attn.nn.position import Encoding, NoPosition, PositionEmbedding, PositionFactory
from escnn_attn.tokens import Domain, Surroundings, Tokens


def steerable_attention(
    q: Tensor, kv: Tensor, encoding: Encoding, patterns: Sequence[AttentionPattern], scale: float
) -> Tensor:
    """Multi-head attention of functions on the group, to functions (b, t, r, h, c): equations (3) to (6) of docs/mathematics.md.

    Args:
        q: coefficients of the queries, (b, t, r, 1, h, c).
        kv: coefficients of keys and values, (b, s, r, 2, h, c).
        encoding: of the positions of queries and keys.
        patterns: the pairs of tokens that attend, for each group of heads.
        scale: factor of the logits.
    """
    mixed = []
    queries, context = encoding.encode_queries(q), encoding.encode_context(kv)  # equation (3)
    for heads, pattern, query, (key, value) in zip(encoding.heads, patterns, queries, context, strict=True):
        summed = pattern.attend(query, key, value, scale, partial(encoding.bias, heads=heads))  # equations (4) and (5)
        # without a key nearby a query may have some farther off, for other heads
        mixed.append(summed if pattern is patterns[-1] else pattern.of_reached(summed))
    return encoding.decode_groups(mixed).to(q.dtype)  # equation (6)


@dataclass(frozen=True)
class Heads:
    """The heads of an attention layer: functions on the group, of one band limit.

    Attributes:
        num_heads: number of heads h.
        channels: functions per head c.
        max_frequency: band limit.
        function: irreps of one function.
    """

    num_heads: int
    channels: int
    max_frequency: int
    function: Irreps

    @classmethod
    def of(cls, types: list[FieldType], num_heads: int, channels: int | None, limit: int | None) -> "Heads":
        """Heads for inputs of the first type, with the band limit of all types where `limit` is None."""
        highest = band_limit(types[0].fibergroup)
        limit = None if limit is None else require_integer("max_frequency", limit, None)
        if limit is not None and (limit < 0 or (highest is not None and limit > highest)):
            bound = "" if highest is None else f" to {highest}"
            raise ValueError(f"max_frequency of {types[0].fibergroup} must be from 0{bound}, got {limit}")
        limit = max_frequency(*types) if limit is None else limit
        function = IsotypicLayout(spectral_type(types[0].gspace, 1, limit)).irreps
        num_heads, channels = require_heads(num_heads, channels, types[0].size / function.size)
        return cls(num_heads, channels, limit, function)

    @property
    def irreps(self) -> Irreps:
        """Irreps of the functions of all heads."""
        return self.function.times(self.num_heads * self.channels)

    @property
    def scale(self) -> float:
        """Factor of the logits: one over the root of the number of coefficients of a head."""
        return (self.channels * self.function.size) ** -0.5

    def project(self, inputs: Irreps, count: int) -> IsotypicLinear:
        """The linear map from isotypic features to `count` sets of functions, such as keys and values."""
        return IsotypicLinear(inputs, self.irreps.times(count), functions_out=self.function)

    def functions(self, projected: Features) -> Tensor:
        """The output (b, t, r, k·h·c) of `project` as coefficients of k sets, (b, t, r, k, h, c)."""
        return projected[0].unflatten(-1, (-1, self.num_heads, self.channels))


class SteerableAttention(IsotypicModule):
    """Base class of multi-head steerable attention.

    A subclass calls `make_heads`, makes the linear maps to queries, keys and values, and defines `query_key_value`.
    """

    def make_heads(self, heads: Heads, position: PositionFactory, neighborhood: Neighborhood | None, dropout: float) -> None:
        """Makes all that self- and cross-attention have in common; the arguments are those of `SteerableSelfAttention`."""
        require_factory("position", position, "PositionEmbedding")
        self.heads, self.neighborhood = heads, require_neighborhood(neighborhood)
        made = position(spectral_type(self.in_type.gspace, heads.channels, heads.max_frequency), heads.num_heads)
        self.position = require_instance("position", made, PositionEmbedding)
        self.gain = nn.Parameter(torch.full((heads.num_heads,), self.position.initial_gain))
        self.project_out = IsotypicLinear(heads.irreps, self.out_layout.irreps, functions_in=heads.function)
        self.dropout = SteerableDropout(self.out_type, dropout)

    @property
    def num_heads(self) -> int:
        return self.heads.num_heads

    @abstractmethod
    def queries_and_context(self, tokens: Tokens, context: Tokens) -> Sequence[Tensor]:
        """Coefficients of queries (b, t, r, 1, h, c), and of keys and values (b, s, r, 2, h, c): equation (2) of docs/mathematics.md."""

    def attend(self, tokens: Tokens, context: Tokens) -> Tokens:
        """Attention from tokens to a context: equations (2) to (7) of docs/mathematics.md."""
        q, kv = self.queries_and_context(tokens, context)  # equation (2)
        around, patterns, encoding = self.prepare(tokens.domain, context.domain)
        functions = steerable_attention(q, around.copies(kv, 1), encoding, patterns, self.heads.scale)  # equations (3) to (6)
        features = self.project_out((functions.flatten(3),), self.gain.repeat_interleave(self.heads.channels))  # equation (7)
        reached = patterns[-1].reached()
        if reached is not None:
            features = tuple(f.masked_fill(~reached[..., None], 0) for f in features)
        return self.dropout(tokens.with_features(features))

    def token_weights(self, tokens: Tokens, context: Tokens) -> Tensor:
        """The attention weights (b, h, t, s) from tokens to a context, for inspection: this stores tokens²."""
        q, kv = self.queries_and_context(tokens, context)
        around, patterns, encoding = self.prepare(tokens.domain, context.domain)
        queries, keys = encoding.encode_queries(q), encoding.encode_context(around.copies(kv, 1))
        weights = [
            pattern.weights(query, key, self.heads.scale, partial(encoding.bias, heads=heads))
            for heads, pattern, query, (key, _) in zip(encoding.heads, patterns, queries, keys, strict=True)
        ]
        return around.total(torch.cat(weights, dim=1), context.domain.num_tokens)

    def prepare(self, query: Domain, context: Domain) -> tuple[Surroundings, list[AttentionPattern], Encoding]:
        """The keys, the patterns of head groups and the encoding, which the domains cache: a compiled graph finds them there."""
        query = query.about(context)
        around = surroundings(self.neighborhood, query, context, everywhere=isinstance(self.position, NoPosition))
        key = around.domain
        patterns = attention_patterns(self.neighborhood, self.position.radii, query, key)

        def at() -> tuple[PositionEmbedding, Encoding]:
            shared = all(pattern is patterns[0] for pattern in patterns)
            distances = [pattern.distance for pattern in (patterns[:1] if shared else patterns)]
            made = self.position.at(query, key, distances)
            return self.position, require_instance(f"{type(self.position).__name__}.at(…)", made, Encoding)

        # under a number, as compilers do not compare modules with other names; the module beside it lives as long, and the number is its own
        made = query.cached(id(self.position), at, key)
        return around, patterns, made[1]

    def extra_repr(self) -> str:
        heads = self.heads
        parts = [
            super().extra_repr(),
            f"num_heads={heads.num_heads}",
            f"head_channels={heads.channels}",
            f"max_frequency={heads.max_frequency}",
            f"neighborhood={self.neighborhood}",
            f"position={self.position}",
        ]
        return ", ".join(parts)


def require_heads(num_heads: int, head_channels: int | None, width: float) -> tuple[int, int]:
    """The number of heads, and the channels of each, an even number: by default ceil(width / num_heads), rounded up to even.

    Raises:
        TypeError: if a number is no integer.
        ValueError: if num_heads < 1, or head_channels cannot be paired.
    """
    num_heads = require_integer("num_heads", num_heads)
    if head_channels is None:
        channels = math.ceil(width / num_heads)
        return num_heads, max(2, channels + channels % 2)
    channels = require_integer("head_channels", head_channels, None)
    if channels < 2 or channels % 2:
        raise ValueError(f"head_channels must be even and at least 2 (channels are paired), got {head_channels!r}")
    return num_heads, channels
