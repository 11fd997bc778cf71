"""Steerable attention for any field type."""

from collections.abc import Callable

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn.base import TokenModule
from escnn_attn.fields import IsotypicLayout, spectral_type
from escnn_attn.fields import max_frequency as highest_frequency
from escnn_attn.functional import attend, attention_weights, from_coefficients, to_coefficients
from escnn_attn.linear import IsotypicLinear
from escnn_attn.positions import PositionEmbedding, RotaryEmbedding
from escnn_attn.tokens import Tokens, domain_of, require_type, to_tokens

Position = Callable[[FieldType, int], PositionEmbedding]


class SteerableSelfAttention(TokenModule):
    r"""Multi-head self-attention that is equivariant to translations, rotations and reflections.

    Queries, keys and values are functions on the group, c for each head, obtained from the input by equivariant linear
    maps. With their position encodings $Q_i$, $K_j$, $V_j$ (rotary, by default; see `RotaryEmbedding`),

    $$\text{out}_i = W_o\,\mathrm{decode}_i\Bigl[\gamma_h \sum_j
      \mathrm{softmax}_j\bigl(\langle Q_i, K_j\rangle / \sqrt{d}\bigr) V_j\Bigr],$$

    d the number of coefficients of a head, in one fused call with memory linear in the tokens. Inner products of
    fields that transform by one orthogonal representation are invariant, so the weights are.

    Args:
        in_type: any field type on the plane.
        out_type: type of the output; None for `in_type`.
        heads: number of heads h.
        head_channels: functions c in a head, an even number for a rotary embedding; None for as many as make the heads
            as wide as the input (rounded up to even, at least 2).
        max_frequency: band limit of the functions; None for the highest frequency in the types, at least 1.
        position: a `PositionEmbedding` class or `functools.partial` of one, called with the head type and `heads`.
        dropout: probability with which whole output fields are dropped in training.

    Shape:
        (b, in_type.size, h, w) to (b, out_type.size, h, w), or (points, in_type.size) to (points, out_type.size).

    Raises:
        TypeError: if the types are not on one planar gspace.
        ValueError: if a number does not make sense.

    Example:
        >>> import torch
        >>> from escnn_attn import SteerableSelfAttention, fourier_type, planar_gspace
        >>> attention = SteerableSelfAttention(fourier_type(planar_gspace("SO2"), 8, 2), heads=2)
        >>> attention(attention.in_type(torch.randn(1, 40, 7, 7))).shape
        torch.Size([1, 40, 7, 7])
    """

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType | None = None,
        *,
        heads: int,
        head_channels: int | None = None,
        max_frequency: int | None = None,
        position: Position = RotaryEmbedding,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_type, in_type if out_type is None else out_type)
        if heads < 1:
            raise ValueError(f"heads must be at least 1, got {heads}")
        if max_frequency is None:
            max_frequency = highest_frequency(self.in_type, self.out_type)
        if head_channels is None:
            head_channels = default_head_channels(in_type, heads, max_frequency)
        elif head_channels < 2 or head_channels % 2:
            raise ValueError(f"head_channels must be even and at least 2 (channels are paired), got {head_channels}")
        group = in_type.fibergroup
        self.heads, self.channels = heads, head_channels
        function = IsotypicLayout(spectral_type(in_type.gspace, 1, max_frequency))
        self.dims, self.copies = function.dims, list(function.multiplicities.values())
        self.scale = (head_channels * function.size) ** -0.5
        wide = {irrep: m * heads * head_channels for irrep, m in function.multiplicities.items()}
        self.project_in = IsotypicLinear(group, self.in_layout.multiplicities, {i: 3 * m for i, m in wide.items()})
        self.project_out = IsotypicLinear(group, wide, self.out_layout.multiplicities)
        self.position = position(spectral_type(in_type.gspace, head_channels, max_frequency), heads)
        self.gain = nn.Parameter(torch.full((heads,), self.position.initial_gain))
        self.dropout = FieldDropout(self.out_type, dropout)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        x, mask = tokens.positions, tokens.mask
        position = self.position.bind(x, x, tokens.key)
        q, k, v = self._functions(tokens)
        out = attend(
            position.encode_query(q, x), position.encode_key(k, x), position.encode_value(v, x),
            self.scale, mask, position.bias(x, x),
        )  # fmt: skip
        coefficients = position.decode(out, x).permute(4, 0, 2, 1, 3) * self.gain[:, None].to(out.dtype)
        features = from_coefficients(coefficients.flatten(3), self.dims, self.copies)
        return self.dropout(tokens.with_features(self.project_out(features)))

    def attention_weights(
        self,
        x: GeometricTensor,
        *,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The attention weights, (b, h, t, s), for inspection: unlike `forward`, this stores tokens²."""
        x = require_type(x, self.in_type)
        tokens = to_tokens(x, self.in_layout, domain_of(x, batch, batch_size), mask)
        at = tokens.positions
        position = self.position.bind(at, at, tokens.key)
        q, k, _ = self._functions(tokens)
        return attention_weights(
            position.encode_query(q, at), position.encode_key(k, at), self.scale, tokens.mask, position.bias(at, at)
        )

    def _functions(self, tokens: Tokens) -> tuple[Tensor, ...]:
        """Queries, keys and values, each as coefficients (b, h, t, c, r), by one product for each irrep."""
        coefficients = to_coefficients(self.project_in(tokens.features), 3 * self.heads * self.channels)
        q, k, v = coefficients.unflatten(-1, (3, self.heads, self.channels)).unbind(3)
        return tuple(part.permute(1, 3, 2, 4, 0) for part in (q, k, v))


class FieldDropout(nn.Module):
    """Drops whole fields of tokens, of one type with `IsotypicLayout`, so that dropping commutes with the group.

    Args:
        field_type: type of the tokens.
        probability: of dropping a field.
    """

    def __init__(self, field_type: FieldType, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"dropout must be in [0, 1), got {probability}")
        self.probability = probability
        fields: dict[tuple, list[int]] = {}
        for index, rho in enumerate(field_type.representations):
            for irrep in rho.irreps:
                fields.setdefault(irrep, []).append(index)
        self.count = len(field_type)
        self.fields = list(fields.values())

    def forward(self, tokens: Tokens) -> Tokens:
        if not self.training or self.probability == 0:
            return tokens
        like = tokens.features[0]
        keep = like.new_empty(*like.shape[1:3], self.count).bernoulli_(1 - self.probability) / (1 - self.probability)
        return tokens.with_features(tuple(f * keep[..., i] for f, i in zip(tokens.features, self.fields, strict=True)))

    def extra_repr(self) -> str:
        return f"probability={self.probability}"


def default_head_channels(in_type: FieldType, heads: int, max_frequency: int) -> int:
    """Channels with which `heads` heads are together as wide as the input, rounded up to even, at least 2."""
    size = spectral_type(in_type.gspace, 1, max_frequency).size
    channels = -(-in_type.size // (heads * size))
    return max(2, channels + channels % 2)
