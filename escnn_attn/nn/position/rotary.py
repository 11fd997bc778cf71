"""Rotary position embeddings in the representations of E(2)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import torch
from escnn.nn import FieldType
from torch import Tensor

from escnn_attn.arguments import require_integer, require_positive, require_range, require_share
from escnn_attn.fields import max_frequency
from escnn_attn.fields.functions import rotary_samples
from escnn_attn.functional import Rotations, decode_functions, encode_functions
from escnn_attn.modes import recorded
from escnn_attn.nn.position._rotation import PlanarFunctions, require_fixed, rotations, spread_wavenumbers
from escnn_attn.nn.position.embedding import Distance, Encoding, PositionEmbedding
from escnn_attn.tokens import Domain, diameter, known, span

T = TypeVar("T")


class RotaryEmbedding(PositionEmbedding):
    r"""Rotary embedding in the irreducible representations of E(2): direction-aware, exact, one fused call.

    Queries, keys and values are functions on the group, their channels in pairs (the first half real, the second half
    imaginary parts), and each is multiplied on samples $g$ of the group by $e^{i\theta(g)}$, $\theta_t(g) =
    (B(g) w_f) \cdot x_t$; only differences of positions enter the logits
    $\int_G \mathrm{Re}\langle q_t(g), e^{i (B(g)w)\cdot(x_s - x_t)} k_s(g)\rangle\,dg$, and the output is multiplied by
    $e^{-i\theta_t(g)}$ and projected back: equations (9) to (13) of docs/mathematics.md. For the trivial group this is the two-dimensional form of RoPE (Su et al.,
    2021, https://arxiv.org/abs/2104.09864).

    Exact for finite groups and translations; for SO(2) and O(2) each frequency takes the number of samples at which
    the truncation error at the largest distance is below `tolerance`. No gradient flows to the positions.

    Args:
        head_type: field type of one head, an even number of spectral fields.
        num_heads: number of heads.
        wavelengths: shortest and longest $2\pi/|w|$, in the units of the positions (token spacings on a grid); one
            wavelength per rotated channel pair and head group, evenly spaced in logarithm.
        max_distance: largest distance between two tokens; None takes that of the tokens at hand, so that the result of a cloud
            depends on the others of its batch, within the tolerance.
        tolerance: bound on the error of a logit under continuous rotations, relative to the norms of query and key; attention
            so sharp that its logits differ by tens amplifies it.
        rotary_fraction: fraction of channel pairs that is rotated, rounded up; the others cost their coefficients instead of
            samples. Few channels per head on clouds, where direction is all there is, learn more with all of them.
        head_groups: number of groups of heads, each with its own wavelengths, at most one per head; None for 4 on continuous
            groups, where heads of long waves are narrower, or with a `reach`, and for 1 elsewhere, where nothing is saved.
        reach: how many of its longest wavelength a head group sees, but for that of the longest waves, which sees all: a short wave
            tells directions nearby, and costs the more samples the farther it has to. None for all tokens. A neighborhood of the layer
            or a graph takes its place.

    Raises:
        TypeError: for arguments that are no numbers.
        ValueError: for an odd number of channels, or wavelengths, distance, tolerance, rotary_fraction, head_groups or reach out
            of range, or a reach of one head group; in use, if tokens are farther apart than `max_distance`, need too many samples (naming a remedy), or have
            positions that require a gradient.

    Examples:
        >>> from functools import partial
        >>> from escnn_attn import RotaryEmbedding, SteerableSelfAttention, fourier_type, planar_gspace
        >>> exact = partial(RotaryEmbedding, wavelengths=(4.0, 32.0), tolerance=1e-6, rotary_fraction=0.5)
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
        wavelengths: Sequence[float] = (6.0, 60.0),
        max_distance: float | None = None,
        tolerance: float = 1e-3,
        rotary_fraction: float = 0.25,
        head_groups: int | None = None,
        reach: float | None = None,
    ) -> None:
        super().__init__(head_type, num_heads)
        if self.channels % 2:
            raise ValueError(f"channels are paired: expected an even number of head channels, got {self.channels}")
        rotary_fraction = require_share("rotary_fraction of the channels", rotary_fraction, most=True)
        head_groups = None if head_groups is None else require_integer("head_groups", head_groups)
        self.max_distance = None if max_distance is None else require_positive("max_distance", max_distance)
        self.reach = None if reach is None else require_positive("reach", reach)
        self.tolerance, self._wavelengths = (
            require_positive("tolerance", tolerance),
            require_range("wavelengths", wavelengths),
        )
        self.functions = PlanarFunctions.of(head_type)
        self.max_frequency = max_frequency(head_type)
        num_heads = self.num_heads
        count = min(num_heads, head_groups or (4 if self.functions.continuous or self.reach else 1))
        if self.reach is not None and count == 1:
            raise ValueError(
                f"reach: expected two head groups or more, as the last one sees all tokens, got {num_heads} heads in one"
            )
        #: number of heads of each group
        self.heads_per_group = [num_heads // count + (i < num_heads % count) for i in range(count)]
        #: $|w|$ of all rotated pairs: of the first head group, then of the second, …, ever smaller
        self.wavenumbers = spread_wavenumbers(wavelengths, count * math.ceil(rotary_fraction * self.channels / 2))

    @property
    def wavelengths(self) -> tuple[float, float]:
        """Shortest and longest wavelength; fixed, as `wavenumbers` are made of them."""
        return self._wavelengths

    @property
    def equivariance_tolerance(self) -> float:
        return self.tolerance / 10 if self.functions.continuous else 0.0  # errors are far below the bound of a single logit

    @property
    def radii(self) -> Sequence[float | None]:
        groups = self._by_group(self.wavenumbers)
        if self.reach is None:
            return [None] * len(groups)
        return [*(self.reach * 2 * math.pi / waves[-1] for waves in groups[:-1]), None]

    def at(self, query: Domain, key: Domain, distances: Sequence[Distance] = (None,)) -> Encoding:
        require_fixed(self, query.positions, key.positions)
        groups, counts = len(self.heads_per_group), [None] * len(self.wavenumbers)
        ends = [(distances[0], None)] * groups if len(distances) == 1 else [*zip(distances, self.radii, strict=True)]
        if self.functions.continuous:
            each = [self._by_group(self.sample_counts(self._reach(query, key, end), radius)) for end, radius in ends]
            counts = [count for group, of_group in enumerate(each) for count in of_group[group]]
        # constants of the domains, not buffers: .float() would round a buffer, and DDP fails on buffers made in forward
        waves = self._by_group(tuple(zip(range(len(counts)), self.wavenumbers, counts, strict=True)))
        name = (self.functions, self.channels // 2, tuple(waves), tuple(self.heads_per_group))
        queries, keys = (domain.table(name, partial(rotations, *name, domain.positions)) for domain in (query, key))
        return RotaryEncoding(self, queries, keys)

    def _by_group(self, of_waves: Sequence[T]) -> list[Sequence[T]]:
        """What is known of each wave, for each head group."""
        size = len(of_waves) // len(self.heads_per_group)
        return [of_waves[start : start + size] for start in range(0, len(of_waves), size)]

    def _reach(self, query: Domain, key: Domain, distance: Distance) -> float:
        if distance is not None and not isinstance(distance, Tensor):
            return distance
        if self.max_distance is None or known(query, key):
            return diameter(query, key)
        if recorded():  # what is recorded checks it in every call
            within = (span(query, key) if distance is None else distance) <= 1.01 * self.max_distance
            torch._assert_async(
                within, f"tokens are farther apart than the max_distance {self.max_distance:g} of RotaryEmbedding"
            )
        return self.max_distance

    def sample_counts(self, distance: float, radius: float | None = None) -> list[int]:
        """Number of rotations that each frequency is sampled on, for tokens at most a distance apart; of continuous groups.

        Args:
            distance: largest distance of the tokens at hand.
            radius: what it can be at most, if that is known.
        """
        if not 0 <= distance < math.inf:
            raise ValueError(f"expected a finite distance, got {distance!r}")
        if self.max_distance is not None:
            if distance > 1.01 * self.max_distance:
                raise ValueError(f"tokens are up to {distance:.3g} apart, but max_distance is {self.max_distance:g}")
            distance = self.max_distance if radius is None else min(self.max_distance, radius)
        # rounded up a little, so that clouds of nearly equal size share tables
        arguments = (math.ceil(8 * w * distance) / 8 for w in self.wavenumbers)
        return [rotary_samples(self.max_frequency, argument, self.tolerance) for argument in arguments]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, wavelengths={self.wavelengths}, tolerance={self.tolerance:g}"


class RotaryEncoding(Encoding):
    """Queries, keys and values on samples of the group, multiplied by the phases of their positions.

    Args:
        embedding: the rotary embedding.
        queries: tables at the positions of the queries.
        keys: tables at the positions of the keys.
    """

    def __init__(self, embedding: RotaryEmbedding, queries: Rotations, keys: Rotations) -> None:
        super().__init__(embedding)
        # numbers of heads and coefficients are those of the embedding, as compilers take the attributes of modules for constants
        self.embedding = embedding
        self.queries, self.keys, self.turned = queries, keys, (True, embedding.rotate_values)

    @property
    def heads(self) -> list[slice]:
        return [rotation.heads for rotation in self.queries]

    def encode_queries(self, functions: Tensor) -> list[Tensor]:
        return [*encode_functions(functions, self.queries, self.turned[:1])]

    def encode_context(self, functions: Tensor) -> list[tuple[Tensor, Tensor]]:
        encoded = encode_functions(functions, self.keys, self.turned)
        return [*zip(encoded[::2], encoded[1::2], strict=True)]

    def decode_groups(self, mixed: Sequence[Tensor]) -> Tensor:
        return decode_functions(mixed, self.queries, self.turned[1:], self.embedding.coefficients).squeeze(3)


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
