r"""The group self-attention of the literature, for finite groups: every pair of a position and a group element is a token."""

from abc import abstractmethod
from functools import partial

import torch
from escnn.nn import FieldType
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from escnn_attn.fields.functions import ExactBuffer
from escnn_attn.fields.types import require_planar
from escnn_attn.functional.attention import rotate_pairs
from escnn_attn.nn.attention._heads import require_heads
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.neighborhood._patterns import AttentionPattern
from escnn_attn.nn.neighborhood.neighborhoods import Neighborhood, attention_pattern, require_neighborhood
from escnn_attn.nn.position._rotation import phases, require_fixed, rotated_waves, spread_radians
from escnn_attn.tokens.tokens import Tokens


class RegularSelfAttention(TokenModule):
    """Base class of attention with regular fields as output: heads, phases, and the sum over keys.

    Args:
        in_type: type of the input.
        out_type: copies of the regular representation of a finite group.
        num_heads: number of heads.
        head_channels: channels of a head, an even number; None for out_type's fields over the heads, rounded up to even.
        wavelengths: shortest and longest of the rotary embedding, in the units of the positions.
        neighborhood: the tokens that a token attends to; None for all.
        checkpointing: whether to compute each group element again for the gradient (gradient checkpointing): less memory,
            for more time.
    """

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        *,
        num_heads: int,
        head_channels: int | None,
        wavelengths: tuple[float, float],
        neighborhood: Neighborhood | None,
        checkpointing: bool,
    ) -> None:
        super().__init__(in_type, out_type)
        gspace = require_planar(out_type)
        if gspace.fibergroup.continuous:
            raise ValueError(f"expected a finite group, got {gspace.fibergroup}: take SteerableSelfAttention")
        _require_copies(out_type, "regular")
        head_channels = require_heads(num_heads, head_channels, len(out_type))
        self.num_heads, self.channels, self.neighborhood = num_heads, head_channels, require_neighborhood(neighborhood)
        self.checkpointing = checkpointing
        elements = list(gspace.fibergroup.elements)
        self.order = len(elements)
        self.waves = ExactBuffer(rotated_waves(gspace, elements, spread_radians(wavelengths, head_channels // 2)).numpy())
        self.project_in = nn.Linear(len(in_type), 3 * num_heads * head_channels)
        self.project_out = nn.Linear(num_heads * head_channels, len(out_type))

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        require_fixed(self, tokens.positions)
        q, k, v = self._project(self.in_layout.merge(tokens.features))
        theta = phases(tokens.positions, self.waves.value.to(tokens.positions)).transpose(1, 2)
        pattern = attention_pattern(self.neighborhood, tokens, tokens, tokens.edges)
        keys, values = (part.permute(0, 2, 3, 1, 4).contiguous() for part in (k, v))  # b h t e c
        swapped, values = _swap_halves(keys), values.flatten(2, 3)
        attend = partial(checkpoint, self._attend, use_reentrant=False) if self.checkpointing else self._attend
        # one element at a time: what is large stays in the cache, and all have the same values
        sums = [attend(q[:, g % q.shape[1]], keys, swapped, values, theta[:, g], g, pattern) for g in range(self.order)]
        out = self.project_out(torch.stack(sums, dim=1).permute(0, 3, 1, 2, 4).flatten(3))  # b t g c
        out = out.permute(0, 3, 2, 1).flatten(1, 2)
        reached = pattern.reached()
        if reached is not None:
            out = out.masked_fill(~reached[:, None], 0)
        return tokens.with_features(self.out_layout.split(out))

    @abstractmethod
    def _project(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values (b, elements or 1, h, t, c) of fields (b, channels, t)."""

    def _offsets(self, g: int) -> Tensor | None:
        """What queries at the element of an index see added to the keys, (h, 1, e, c); None for nothing."""
        return None

    def _attend(
        self, q: Tensor, keys: Tensor, swapped: Tensor, values: Tensor, theta: Tensor, g: int, pattern: AttentionPattern
    ) -> Tensor:
        """Sums over keys (b, h, t, c) for the queries at one element, with its phases theta (b, t, pairs).

        The halves of `swapped` are those of the keys (b, h, t, e, c), exchanged.
        """
        theta = theta[:, None]
        query = rotate_pairs(q, theta.cos(), theta.sin())
        # as wide as the keys, though equal for all elements: products with short rows are slow
        theta = theta[..., None, :].expand(-1, -1, -1, keys.shape[3], -1)
        cos, sin = torch.cat([theta, theta], dim=-1).cos(), torch.cat([-theta, theta], dim=-1).sin()
        turned = (keys * cos).addcmul(swapped, sin)
        offsets = self._offsets(g)
        if offsets is not None:
            turned = turned + (offsets * cos).addcmul(_swap_halves(offsets), sin)
        return pattern.attend(query, turned.flatten(2, 3).to(q.dtype), values, self.channels**-0.5, lambda *_: None)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_heads={self.num_heads}, head_channels={self.channels}"


class LiftingSelfAttention(RegularSelfAttention):
    r"""Self-attention from scalars to functions on a finite group, by turning the position embedding with the group.

    $$\text{out}(i,g) = W_o \sum_j \mathrm{softmax}_j\bigl(\langle q_i, R[(B(g)w)\cdot(x_j-x_i)]\,k_j\rangle/\sqrt c\bigr)\,v_j$$

    with $R$ the rotation of channel pairs. Romero & Cordonnier (2021, https://arxiv.org/abs/2010.00977) add a learned
    embedding of $g^{-1}(x_j - x_i)$ to the key, which needs a value for every offset of the turned grid; the rotary phase in
    its place is exact and needs one fused call.

    Args:
        in_type: scalar fields.
        out_type: copies of the regular representation of a finite group (`fourier_type` without a max_frequency).
        num_heads: number of heads.
        head_channels: channels of a head, an even number; None for out_type's fields over the heads, rounded up to even.
        wavelengths: shortest and longest $2\pi/|w|$, in the units of the positions.
        neighborhood: the tokens that a token attends to; None for all.
        checkpointing: gradient checkpointing over group elements: less memory, for more time.

    Shape:
        (b, channels, h, w) to (b, fields·|G|, h, w), or (points, …).

    Raises:
        TypeError: for other types.
        ValueError: for a continuous group, numbers that make no sense, or, in use, positions that require a gradient.

    Examples:
        >>> import torch
        >>> from escnn_attn import LiftingSelfAttention, field_type, fourier_type, planar_gspace
        >>> d4 = planar_gspace("D4")
        >>> lifting = LiftingSelfAttention(field_type(d4, scalars=3), fourier_type(d4, 4), num_heads=2)
        >>> lifting(lifting.in_type(torch.randn(1, 3, 7, 7))).shape
        torch.Size([1, 32, 7, 7])
    """

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        *,
        num_heads: int,
        head_channels: int | None = None,
        wavelengths: tuple[float, float] = (6.0, 60.0),
        neighborhood: Neighborhood | None = None,
        checkpointing: bool = False,
    ) -> None:
        _require_copies(in_type, "trivial")
        super().__init__(
            in_type, out_type, num_heads=num_heads, head_channels=head_channels, wavelengths=wavelengths, neighborhood=neighborhood,
            checkpointing=checkpointing,
        )  # fmt: skip

    def _project(self, x: Tensor) -> list[Tensor]:
        projected = self.project_in(x.mT).unflatten(-1, (3, self.num_heads, self.channels))
        return [part.transpose(1, 2)[:, None] for part in projected.unbind(2)]


class GroupSelfAttention(RegularSelfAttention):
    r"""Self-attention of functions on a finite group: queries and keys at all pairs of a position and a group element.

    $$\text{out}(i,g) = W_o \sum_{j,h} \mathrm{softmax}_{j,h}\bigl(\langle q(i,g),
      R[(B(g)w)\cdot(x_j-x_i)]\,(k(j,h) + e(g^{-1}h))\rangle/\sqrt c\bigr)\,v(j,h)$$

    with $R$ the rotation of channel pairs and $e$ a learned embedding of relative group elements: the group self-attention
    of Romero & Cordonnier (2021, https://arxiv.org/abs/2010.00977), with the position embedding of
    `LiftingSelfAttention`. Exactly equivariant to the group and to translations. Time grows with |G|²·tokens² (with a
    neighborhood |G|²·tokens), memory with |G|²·tokens.

    Args:
        in_type: copies of the regular representation of a finite group.
        out_type: the same, of another number of copies; None for `in_type`.
        num_heads: number of heads.
        head_channels: channels of a head, an even number; None for out_type's fields over the heads, rounded up to even.
        wavelengths: shortest and longest $2\pi/|w|$, in the units of the positions.
        neighborhood: the tokens that a token attends to; None for all.
        checkpointing: gradient checkpointing over group elements: less memory, for more time.

    Shape:
        (b, fields·|G|, h, w) to (b, fields'·|G|, h, w), or (points, …).

    Raises:
        TypeError: for other types.
        ValueError: for a continuous group, numbers that make no sense, or, in use, positions that require a gradient.

    Examples:
        >>> import torch
        >>> from escnn_attn import Disc, GroupSelfAttention, fourier_type, planar_gspace
        >>> attention = GroupSelfAttention(fourier_type(planar_gspace("C4"), 4), num_heads=2, neighborhood=Disc(2.0))
        >>> attention(attention.in_type(torch.randn(1, 16, 7, 7))).shape
        torch.Size([1, 16, 7, 7])
    """

    relative: Tensor

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType | None = None,
        *,
        num_heads: int,
        head_channels: int | None = None,
        wavelengths: tuple[float, float] = (6.0, 60.0),
        neighborhood: Neighborhood | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            in_type, in_type if out_type is None else out_type, num_heads=num_heads, head_channels=head_channels,
            wavelengths=wavelengths, neighborhood=neighborhood, checkpointing=checkpointing,
        )  # fmt: skip
        _require_copies(in_type, "regular")
        elements = list(self.in_type.fibergroup.elements)
        relative = [[elements.index(~g @ h) for h in elements] for g in elements]
        self.register_buffer("relative", torch.tensor(relative), persistent=False)
        self.embedding = nn.Parameter(0.2 * torch.randn(self.order, self.num_heads, self.channels))

    def _project(self, x: Tensor) -> list[Tensor]:
        x = x.unflatten(1, (-1, self.order)).permute(0, 2, 3, 1)  # b g t c
        projected = self.project_in(x).unflatten(-1, (3, self.num_heads, self.channels))
        return [part.transpose(2, 3) for part in projected.unbind(3)]

    def _offsets(self, g: int) -> Tensor:
        return self.embedding[self.relative[g]].transpose(0, 1)[:, None]


def _swap_halves(x: Tensor) -> Tensor:
    return x.roll(x.shape[-1] // 2, -1)


def _require_copies(field_type: FieldType, kind: str) -> None:
    """Raises a TypeError unless a type is made of copies of the `kind` ("trivial" or "regular") representation."""
    gspace = require_planar(field_type)
    expected = gspace.trivial_repr if kind == "trivial" else gspace.regular_repr
    if any(rho != expected for rho in dict.fromkeys(field_type.representations)):
        raise TypeError(f"expected copies of the {kind} representation of {gspace.fibergroup}, got {field_type}")
