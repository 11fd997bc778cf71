r"""The group self-attention of the literature, for finite groups: every pair of a position and a group element is a token."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from einops import rearrange
from escnn.nn import FieldType
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from escnn_attn.arguments import require_flag
from escnn_attn.fields import ExactBuffer, require_planar
from escnn_attn.functional import phases, rotate_pairs
from escnn_attn.nn.attention.core import require_heads
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.neighborhood import AttentionPattern, Neighborhood, attention_pattern, require_neighborhood, surroundings
from escnn_attn.nn.position._rotation import require_fixed, rotated_waves, spread_wavenumbers
from escnn_attn.tokens import Tokens


class RegularSelfAttention(TokenModule):
    """Base class of attention with regular fields as output: heads, phases, and the sum over keys.

    Args:
        in_type: copies of the `in_kind` representation of a finite group.
        out_type: copies of its regular representation; None for `in_type`.
        num_heads, head_channels, wavelengths, neighborhood, checkpointing: see `GroupSelfAttention`.
    """

    #: the representation of the input fields: "trivial" or "regular"
    in_kind: str

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType | None = None,
        *,
        num_heads: int,
        head_channels: int | None = None,
        wavelengths: Sequence[float] = (6.0, 60.0),
        neighborhood: Neighborhood | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(in_type, in_type if out_type is None else out_type)
        gspace, group = require_planar(in_type), in_type.fibergroup
        if group.continuous:
            raise ValueError(f"expected a finite group for in_type, got {group}: take SteerableSelfAttention")
        _require_copies(in_type, self.in_kind)
        _require_copies(self.out_type, "regular")
        self.num_heads, self.channels = num_heads, channels = require_heads(num_heads, head_channels, len(self.out_type))
        self.neighborhood, self.checkpointing = require_neighborhood(neighborhood), require_flag("checkpointing", checkpointing)
        elements = list(group.elements)
        self.order = len(elements)
        self.waves = ExactBuffer(rotated_waves(gspace, elements, spread_wavenumbers(wavelengths, channels // 2)))
        self.project_in = nn.Linear(len(in_type), 3 * num_heads * channels)
        self.project_out = nn.Linear(num_heads * channels, len(self.out_type))
        self._make_parameters()

    def _make_parameters(self) -> None:
        """Parameters of a subclass."""

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        """Equation (21) or (22) of docs/mathematics.md."""
        domain = tokens.domain
        require_fixed(self, domain.positions)
        around = surroundings(self.neighborhood, domain, domain)
        q, k, v = self._project(self.in_layout.merge(tokens.features))
        waves = self.waves.like(domain.positions)
        theta, key_theta = (phases(place.positions, waves).transpose(1, 2) for place in (domain, around.domain))
        pattern = attention_pattern(self.neighborhood, domain, around.domain)
        keys, values = (rearrange(around.copies(part, 3), "b u h t c -> b h t u c").contiguous() for part in (k, v))
        swapped, values = _swap_halves(keys), values.flatten(2, 3)
        attend = partial(checkpoint, self._attend, use_reentrant=False) if self.checkpointing else self._attend
        # an element at a time: large temporaries stay in the cache, and all elements have the same values
        sums = [
            attend(q[:, min(g, q.shape[1] - 1)], keys, swapped, values, (theta[:, g], key_theta[:, g]), g, pattern)
            for g in range(self.order)
        ]
        out = self.project_out(rearrange(torch.stack(sums), "g b h t c -> b t g (h c)"))
        out = rearrange(out, "b t g field -> b (field g) t")
        reached = pattern.reached()
        if reached is not None:
            out = out.masked_fill(~reached[:, None], 0)
        return tokens.with_features(self.out_layout.split(out))

    @abstractmethod
    def _project(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values (b, u or 1, h, t, c) of fields (b, channels, t), u the group element."""

    def _offsets(self, g: int) -> Tensor | None:
        """Embeddings (h, 1, u, c) of the keys' elements relative to that of the queries, the g-th; None for none."""
        return None

    def _attend(
        self,
        q: Tensor,
        keys: Tensor,
        swapped: Tensor,
        values: Tensor,
        thetas: tuple[Tensor, Tensor],
        g: int,
        pattern: AttentionPattern,
    ) -> Tensor:
        """Sums over keys (b, h, t, c) for the queries at the g-th element, with its phases (b, t, pairs) of queries and of keys.

        The keys are (b, h, t, u, c), and `swapped` are the keys with their halves exchanged.
        """
        theta, key_theta = (part[:, None] for part in thetas)
        query = rotate_pairs(q, theta.cos(), theta.sin())
        # as wide as the keys, though equal for all elements: products with short rows are slow
        wide = key_theta[..., None, :].expand(-1, -1, -1, keys.shape[3], -1)
        cos, sin = torch.cat([wide, wide], dim=-1).cos(), torch.cat([-wide, wide], dim=-1).sin()
        rotated = (keys * cos).addcmul(swapped, sin)
        offsets = self._offsets(g)
        if offsets is not None:
            rotated = rotated + (offsets * cos).addcmul(_swap_halves(offsets), sin)
        key = rotated.flatten(2, 3).to(q.dtype)
        return pattern.attend(query, key, values, self.channels**-0.5, lambda *_: None, copies=keys.shape[3])

    def extra_repr(self) -> str:
        heads = f"num_heads={self.num_heads}, head_channels={self.channels}"
        return f"{super().extra_repr()}, {heads}, neighborhood={self.neighborhood}"


class LiftingSelfAttention(RegularSelfAttention):
    r"""Self-attention from scalars to functions on a finite group, by rotating the position embedding with the group: equation (21) of docs/mathematics.md.

    $$\text{out}(t,g) = W_o \sum_s \mathrm{softmax}_s\bigl(\langle q_t, R[(B(g)w)\cdot(x_s-x_t)]\,k_s\rangle/\sqrt C\bigr)\,v_s$$

    with $R$ the rotation of channel pairs. Romero & Cordonnier (2021, https://arxiv.org/abs/2010.00977) add a learned
    embedding of $g^{-1}(x_s - x_t)$ to the key, which needs a value for every offset of the rotated grid; the rotary phase in
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
        (b, channels, height, width) to (b, fields·|G|, height, width), or (points, …).

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

    in_kind = "trivial"

    def _project(self, x: Tensor) -> list[Tensor]:
        projected = self.project_in(x.mT).unflatten(-1, (3, self.num_heads, self.channels))
        return [part.transpose(1, 2)[:, None] for part in projected.unbind(2)]


class GroupSelfAttention(RegularSelfAttention):
    r"""Self-attention of functions on a finite group: queries and keys at all pairs of a position and a group element.

    $$\text{out}(t,g) = W_o \sum_{s,u} \mathrm{softmax}_{s,u}\bigl(\langle q(t,g),
      R[(B(g)w)\cdot(x_s-x_t)]\,(k(s,u) + \eta(g^{-1}u))\rangle/\sqrt C\bigr)\,v(s,u)$$

    equation (22) of docs/mathematics.md, with $R$ the rotation of channel pairs and $\eta$ a learned embedding of relative group elements: the group self-attention
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
        (b, fields·|G|, height, width) to (b, fields'·|G|, height, width), or (points, …).

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

    in_kind = "regular"

    def _make_parameters(self) -> None:
        elements = list(self.in_type.fibergroup.elements)
        relative = [[elements.index(~g @ u) for u in elements] for g in elements]
        self.relative = ExactBuffer(relative)
        self.embedding = nn.Parameter(0.2 * torch.randn(self.order, self.num_heads, self.channels))

    def _project(self, x: Tensor) -> list[Tensor]:
        x = x.unflatten(1, (-1, self.order)).permute(0, 2, 3, 1)  # b g t c
        projected = self.project_in(x).unflatten(-1, (3, self.num_heads, self.channels))
        return [part.transpose(2, 3) for part in projected.unbind(3)]

    def _offsets(self, g: int) -> Tensor:
        return self.embedding[self.relative.like(self.embedding)[g]].transpose(0, 1)[:, None]


def _swap_halves(x: Tensor) -> Tensor:
    return x.roll(x.shape[-1] // 2, -1)


def _require_copies(field_type: FieldType, kind: str) -> None:
    """Raises a TypeError unless a type is made of copies of the `kind` ("trivial" or "regular") representation."""
    gspace = require_planar(field_type)
    expected = gspace.trivial_repr if kind == "trivial" else gspace.regular_repr
    if any(rho != expected for rho in dict.fromkeys(field_type.representations)):
        raise TypeError(f"expected copies of the {kind} representation of {gspace.fibergroup}, got {field_type}")
