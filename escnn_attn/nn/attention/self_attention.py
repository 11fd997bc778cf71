"""Steerable self-attention for any field type."""

from collections.abc import Sequence

from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from typing_extensions import Unpack

from escnn_attn.nn.attention.core import Heads, SteerableAttention
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.neighborhood import Neighborhood
from escnn_attn.nn.position import PositionFactory, RotaryEmbedding
from escnn_attn.tokens import DomainOptions, Tokens, require_input


class SteerableSelfAttention(SteerableAttention, TokenModule):
    r"""Multi-head self-attention that is equivariant to translations, rotations and reflections.

    Queries, keys and values are functions on the group, c for each head, obtained from the input by equivariant linear
    maps. With their position encodings $Q_t$, $K_s$, $V_s$ (rotary, by default; see `RotaryEmbedding`),

    $$\text{out}_t = W_o\Bigl(\gamma_h\,\mathrm{decode}_t\Bigl[\sum_{s \in \mathcal{N}(t)}
      \mathrm{softmax}_s\bigl(\langle Q_{ht}, K_{hs}\rangle / \sqrt{CR}\bigr) V_{hs}\Bigr]\Bigr)_h,$$

    equations (2) to (7) of docs/mathematics.md, $CR$ the number of coefficients of a head, in one fused call per head group
    with memory linear in the tokens. Inner products of
    fields that transform by one orthogonal representation are invariant, and so are the weights. From scalars to directed
    fields, it is a lifting layer.

    Args:
        in_type: any field type on the plane.
        out_type: type of the output; None for `in_type`.
        num_heads: number of heads h.
        head_channels: functions per head c, an even number; by default ceil(width / num_heads) with the width of the input in
            functions, rounded up to even. So `num_heads` need not divide the channels: the heads together are then wider than the
            input, and `project_out` maps them back. The repr of the layer shows what was chosen.
        max_frequency: band limit of the functions; None for the highest frequency of the types, at least 1.
        position: a `PositionEmbedding` class or `functools.partial` of one, called with the head type and `num_heads`.
        neighborhood: the tokens $\mathcal{N}(t)$ that a token attends to, `Disc(radius)` or `KNearest(k)`; None for all,
            which periodic domains (`forward(…, periodic=True)`) do not allow.
        dropout: probability of dropping a field of the output in training, in [0, 1).

    Shape:
        (b, in_type.size, height, width) to (b, out_type.size, height, width), or (points, in_type.size) to (points, out_type.size).

    Raises:
        TypeError: if the types are not on one planar gspace, or `position` or `neighborhood` is of another type.
        ValueError: if num_heads < 1, head_channels is odd or less than 2, or dropout is not in [0, 1).

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableSelfAttention, fourier_type, planar_gspace
        >>> attention = SteerableSelfAttention(fourier_type(planar_gspace("SO2"), 8, 2), num_heads=2)
        >>> attention(attention.in_type(torch.randn(1, 40, 7, 7))).shape
        torch.Size([1, 40, 7, 7])
    """

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType | None = None,
        *,
        num_heads: int,
        head_channels: int | None = None,
        max_frequency: int | None = None,
        position: PositionFactory = RotaryEmbedding,
        neighborhood: Neighborhood | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_type, in_type if out_type is None else out_type)
        heads = Heads.of([in_type, self.out_type], num_heads, head_channels, max_frequency)
        self.project_in = heads.project(self.in_layout.irreps, 3)
        self.make_heads(heads, position, neighborhood, dropout)

    def queries_and_context(self, tokens: Tokens, context: Tokens) -> Sequence[Tensor]:
        return self.heads.functions(self.project_in(tokens.features)).split((1, 2), dim=3)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        return self.attend(tokens, tokens)

    def attention_weights(self, x: GeometricTensor, **options: Unpack[DomainOptions]) -> Tensor:
        """The attention weights (b, h, t, s), for inspection: unlike `forward`, this stores tokens².

        The arguments are those of `forward`.
        """
        tokens = Tokens.of(require_input(x, self.in_type, self), self.in_layout, **options)
        return self.token_weights(tokens, tokens)
