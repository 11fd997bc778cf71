r"""Position embeddings: how attention knows where tokens are, and where to extend it."""

import copy
import math
from collections.abc import Sequence

import torch
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.fields.functions import rotary_samples
from escnn_attn.fields.types import max_frequency
from escnn_attn.nn.position._rotation import PlanarFunctions, Rotation, Rotations, require_fixed, spread_radians
from escnn_attn.tokens.domains import diameter

#: number of grids whose tables a rotary embedding keeps
KNOWN = 16

#: what a subclass of `PositionEmbedding` may override
HOOKS = ("encode_query", "encode_key", "encode_value", "decode", "bias")


class PositionEmbedding(nn.Module):
    r"""Base class: every hook flattens, so attention does not see positions.

    A subclass overrides some of the hooks. Attention weights stay invariant, and outputs equivariant, if the inner
    products of encoded queries and keys are invariant and `decode` of a weighted sum of encoded values is equivariant.

    Args:
        head_type: field type of one head, c copies of a representation with r coefficients.
        num_heads: number of heads h.

    Shape:
        encode_query, encode_key, encode_value: coefficients (b, h, t, c, r) at positions (b or 1, t, 2) to
        (b, h, t, width), one width for all three; decode: (b, h, t, width) to (b, h, t, c, r); bias: positions
        (b or 1, t, 2) and (b or 1, s, 2) to logits that broadcast to (b, h, t, s), or None. With a neighborhood, bias is
        called for tiles of a grid, or for the edges of a graph (b of them, t = s = 1), so it must see positions alone.

    Examples:
        >>> import torch
        >>> from escnn_attn import PositionEmbedding
        >>> class NearIsGood(PositionEmbedding):
        ...     def bias(self, x_query, x_key):
        ...         return -torch.cdist(x_query, x_key)[:, None]
    """

    #: factor that attention outputs start with, to have the scale of its input where the embedding averages values out
    initial_gain: float = 1.0

    def __init__(self, head_type: FieldType, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.channels = len(head_type)
        self.coefficients = head_type.size // len(head_type)

    def bind(
        self, x_query: Tensor, x_key: Tensor, distance: float | None = None, key: tuple | None = None
    ) -> "PositionEmbedding":
        """This embedding, made ready for one call of attention at positions (b or 1, t, 2) and (b or 1, s, 2).

        `distance` is the largest between a query and a key of it, None for that of all tokens; `key` names the positions,
        where they recur (see `Tokens`).
        """
        return self

    def encode_query(self, q: Tensor, x: Tensor) -> Tensor:
        return q.flatten(-2)

    def encode_key(self, k: Tensor, x: Tensor) -> Tensor:
        return k.flatten(-2)

    def encode_value(self, v: Tensor, x: Tensor) -> Tensor:
        return v.flatten(-2)

    def decode(self, out: Tensor, x: Tensor) -> Tensor:
        return out.unflatten(-1, (self.channels, self.coefficients))

    def bias(self, x_query: Tensor, x_key: Tensor) -> Tensor | None:
        return None

    def parts(self) -> list[tuple[slice, "PositionEmbedding"]]:
        """Heads that attend in a call of their own, because they are as wide as each other, with the embedding for them."""
        return [(slice(None), self)]

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, channels={self.channels}, coefficients={self.coefficients}"


class NoPosition(PositionEmbedding):
    """Attention that does not see positions: permutation equivariant on top of the symmetries.

    Args:
        head_type: field type of one head.
        num_heads: number of heads.

    Examples:
        >>> from escnn_attn import NoPosition, SteerableSelfAttention, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("C4"), 2)
        >>> SteerableSelfAttention(t, num_heads=1, position=NoPosition).position
        NoPosition(num_heads=1, channels=2, coefficients=4)
    """


class RotaryEmbedding(PositionEmbedding):
    r"""Rotary embedding in the irreducible representations of E(2): direction-aware, exact, one fused call.

    Queries, keys and values are functions on the group, their channels in pairs (the first half real, the second half
    imaginary parts), and each is multiplied on samples $g$ of the group by $e^{i\theta(g)}$, $\theta_i(g) =
    (B(g) w_f) \cdot x_i$; only differences of positions enter the logits
    $\int_G \mathrm{Re}\langle q_i(g), e^{i (B(g)w)\cdot(x_j - x_i)} k_j(g)\rangle\,dg$, and the output is multiplied by
    $e^{-i\theta_i(g)}$ and projected back. For the trivial group this is the two-dimensional form of RoPE (Su et al.,
    2021, https://arxiv.org/abs/2104.09864).

    Exact for finite groups and translations; for SO(2) and O(2) each frequency takes the number of samples at which
    the part it misses, of the largest distance, is below `tolerance`. No gradient flows to the positions.

    Args:
        head_type: field type of one head, an even number of spectral fields.
        num_heads: number of heads.
        wavelengths: shortest and longest $2\pi/|w|$, in the units of the positions (token spacings on a grid); one
            wavelength for each turned channel pair of each scale, evenly spaced in logarithm.
        max_distance: largest distance between two tokens; None takes that of the tokens at hand.
        tolerance: bound on the error of a logit under continuous rotations, relative to the norms of query and key; attention
            so sharp that its logits differ by tens amplifies it.
        rotary_fraction: of the channel pairs that are turned, rounded up; the others cost their coefficients instead of samples.
            Heads of few channels on clouds, where directions are all there is, learn more with all of them.
        head_groups: groups of heads with wavelengths of their own, at most one a head; None for 4 on continuous groups, where heads
            of long waves are narrower, and one on finite groups, where nothing is saved.

    Raises:
        ValueError: for an odd number of channels, wavelengths, distance, tolerance, fraction or scales out of range; in use,
            if tokens are farther apart than `max_distance`, need too many samples (naming what would do), or have positions
            that require a gradient.

    Examples:
        >>> from functools import partial
        >>> from escnn_attn import RotaryEmbedding, SteerableSelfAttention, fourier_type, planar_gspace
        >>> exact = partial(RotaryEmbedding, wavelengths=(4.0, 32.0), tolerance=1e-6)
        >>> attention = SteerableSelfAttention(fourier_type(planar_gspace("SO2"), 16, 2), num_heads=2, position=exact)
        >>> attention.position.sample_counts(10.0)  # rotations for the shortest to the longest wavelength
        [36, 24, 20, 16]
    """

    initial_gain = 6.0
    rotate_values = True

    def __init__(
        self,
        head_type: FieldType,
        num_heads: int,
        *,
        wavelengths: tuple[float, float] = (6.0, 60.0),
        max_distance: float | None = None,
        tolerance: float = 1e-3,
        rotary_fraction: float = 0.5,
        head_groups: int | None = None,
    ) -> None:
        super().__init__(head_type, num_heads)
        if self.channels % 2:
            raise ValueError(f"channels are paired: expected an even number of head channels, got {self.channels}")
        if not 0 < rotary_fraction <= 1:
            raise ValueError(f"expected a rotary_fraction of the channels in (0, 1], got {rotary_fraction}")
        if head_groups is not None and head_groups < 1:
            raise ValueError(f"expected at least one scale, got {head_groups}")
        if tolerance <= 0 or (max_distance is not None and max_distance <= 0):
            raise ValueError(f"expected a positive tolerance and max_distance, got {tolerance} and {max_distance}")
        self.wavelengths, self.max_distance, self.tolerance = tuple(wavelengths), max_distance, tolerance
        self.functions = PlanarFunctions.of(head_type)
        self.max_frequency = max_frequency(head_type)
        count = min(num_heads, head_groups or (4 if self.functions.continuous else 1))
        #: number of heads of each scale
        self.heads_per_group = [num_heads // count + (i < num_heads % count) for i in range(count)]
        #: $|w|$ of all pairs that are turned: of the first pair of each scale, then of the second, …
        self.radians = spread_radians(wavelengths, count * math.ceil(rotary_fraction * self.channels / 2))
        self._known: dict[tuple, tuple[Rotations, Rotations]] = {}
        self._bound: tuple[Rotations | Rotation, Rotations | Rotation] | None = None
        self._parts: list[tuple[slice, PositionEmbedding]] = []

    def bind(
        self, x_query: Tensor, x_key: Tensor, distance: float | None = None, key: tuple | None = None
    ) -> "RotaryEmbedding":
        require_fixed(self, x_query, x_key)
        bound = copy.copy(self)
        bound._bound = queries, keys = self._rotations(x_query, x_key, distance, key)
        if all(getattr(type(self), hook) is getattr(RotaryEmbedding, hook) for hook in HOOKS):  # others see all heads
            bound._parts = [
                (queries.heads[i], bound._part(i, pair)) for i, pair in enumerate(zip(queries.parts, keys.parts, strict=True))
            ]
        return bound

    def _part(self, scale: int, rotations: tuple[Rotation, Rotation]) -> "RotaryEmbedding":
        part = copy.copy(self)
        part.num_heads, part._bound = self.heads_per_group[scale], rotations
        return part

    def parts(self) -> list[tuple[slice, PositionEmbedding]]:
        return self._parts or super().parts()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_known": {}}  # tables are made anew in a copy

    def _rotations(
        self, x_query: Tensor, x_key: Tensor, distance: float | None, key: tuple | None
    ) -> tuple[Rotations, Rotations]:
        # a plain table, not a buffer: a buffer would be rounded by .float() and, made in forward, upset DDP
        counts = None if distance is None else tuple(self.sample_counts(distance))
        known = (key, counts, x_query.dtype, x_query.device, self.tolerance)
        if key is not None and known in self._known:
            return self._known[known]
        # made under inference mode, tables that are kept could not serve a later training step
        with torch.inference_mode(x_query.is_inference() and key is None), torch.no_grad():
            if counts is None:
                counts = self.sample_counts(diameter(x_query, x_key) if self.functions.continuous else None)
            query = self._rotation(x_query, counts)
            rotations = query, query if x_key is x_query else self._rotation(x_key, counts)
        if key is not None:
            while len(self._known) >= KNOWN:  # the oldest goes first
                del self._known[next(iter(self._known))]
            self._known[known] = rotations
        return rotations

    def sample_counts(self, distance: float | None) -> list[int | None]:
        """Number of rotations each frequency is sampled on, for tokens so far apart; None for finite groups."""
        if not self.functions.continuous or distance is None:
            return [None] * len(self.radians)
        if self.max_distance is not None:
            if distance > 1.01 * self.max_distance:
                raise ValueError(f"tokens are up to {distance:.3g} apart, but max_distance is {self.max_distance:g}")
            distance = self.max_distance
        # rounded up a little, so that clouds of nearly one size share what was computed
        arguments = (math.ceil(8 * w * distance) / 8 for w in self.radians)
        return [rotary_samples(self.max_frequency, argument, self.tolerance) for argument in arguments]

    def _rotation(self, x: Tensor, counts: Sequence[int | None]) -> Rotations:
        waves = list(zip(range(len(counts)), self.radians, counts, strict=True))
        return Rotations(self.functions, self.channels // 2, waves, self.heads_per_group, x)

    def encode_query(self, q: Tensor, x: Tensor) -> Tensor:
        return self._at(x)[0].encode(q)

    def encode_key(self, k: Tensor, x: Tensor) -> Tensor:
        return self._at(x)[1].encode(k)

    def encode_value(self, v: Tensor, x: Tensor) -> Tensor:
        return self._at(x)[1].encode(v, self.rotate_values)

    def decode(self, out: Tensor, x: Tensor) -> Tensor:
        return self._at(x)[0].decode(out, self.rotate_values)

    def _at(self, x: Tensor) -> tuple[Rotations | Rotation, Rotations | Rotation]:
        """The tables of queries and keys, as bound, or else of tokens at x alone."""
        return self._bound or self._rotations(x, x, None, None)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, wavelengths={self.wavelengths}, tolerance={self.tolerance:g}"


class QueryKeyRotaryEmbedding(RotaryEmbedding):
    """`RotaryEmbedding` of queries and keys alone, as in language models: positions shape the weights only.

    For the trivial group this is two-dimensional RoPE, the position embedding of a plain transformer. The arguments are
    those of `RotaryEmbedding`.

    Examples:
        >>> from escnn_attn import QueryKeyRotaryEmbedding, SteerableSelfAttention, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("trivial"), 64)
        >>> SteerableSelfAttention(t, num_heads=4, position=QueryKeyRotaryEmbedding).position
        QueryKeyRotaryEmbedding(num_heads=4, channels=16, coefficients=1, wavelengths=(6.0, 60.0), tolerance=0.001)
    """

    initial_gain = 1.0
    rotate_values = False
