"""Position embeddings by distance alone: cheaper than the rotary embedding, and blind to direction."""

import math
from collections.abc import Sequence

import torch
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.arguments import require_integer, require_pair, require_positive
from escnn_attn.functional import distances, radial_sum
from escnn_attn.nn.position.embedding import Distance, Encoding, PositionEmbedding
from escnn_attn.tokens import Domain


class DistanceBias(PositionEmbedding):
    r"""A Gaussian window for each head: the logits get $-\lambda_h |x_t - x_s|^2$, in one fused call.

    Equation (18) of docs/mathematics.md: $|x_t|^2$ cancels in the softmax, so three more dimensions do it: $\tilde q = (q, 2\lambda\sqrt{CR}\,x_t, -\lambda\sqrt{CR})$,
    $\tilde k = (k, x_s, |x_s|^2)$; values are padded to the same width. Memory is linear in the tokens. Between all pairs of a
    cloud of diameter $D$ this rounds logits by about $10^{-7} \lambda_h D^2$ in float32; with a neighborhood they come from
    differences of positions, and nothing is rounded.

    Args:
        head_type: field type of one head.
        num_heads: number of heads.
        lengths: $1/\sqrt{2\lambda}$ that the first and last head start with, evenly spaced in logarithm between, in the
            units of the positions.

    Raises:
        TypeError: if the lengths are no two numbers.
        ValueError: if they are not positive and finite.

    Examples:
        >>> from escnn_attn import DistanceBias, SteerableSelfAttention, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("SO2"), 4, 1)
        >>> SteerableSelfAttention(t, num_heads=2, position=DistanceBias).position.log_rate.shape
        torch.Size([2])
    """

    def __init__(self, head_type: FieldType, num_heads: int, *, lengths: Sequence[float] = (2.0, 16.0)) -> None:
        super().__init__(head_type, num_heads)
        first, last = (math.log(0.5 / length**2) for length in require_pair("lengths", lengths))
        between = torch.linspace(0, 1, self.num_heads) if self.num_heads > 1 else torch.tensor([0.5])
        self.log_rate = nn.Parameter(first + (last - first) * between)

    def at(self, query: Domain, key: Domain, distances: Sequence[Distance] = (None,)) -> Encoding:
        # with a neighborhood from the differences of positions, which a wide cloud does not round
        return Encoding(self) if distances[0] is not None else DistanceEncoding(self, query.positions, key.positions)

    def bias(self, x_query: Tensor, x_key: Tensor) -> Tensor:
        squares = (x_query[:, :, None] - x_key[:, None]).square().sum(dim=-1)
        return -self.log_rate.to(squares.dtype).exp()[:, None, None] * squares[:, None]


class DistanceEncoding(Encoding):
    r"""Queries, keys and values with three more dimensions, not rounded below float32.

    Args:
        embedding: with the rates $\lambda_h$.
        x_query: positions of the queries (b or 1, t, 2).
        x_key: positions of the keys (b or 1, s, 2).
    """

    def __init__(self, embedding: DistanceBias, x_query: Tensor, x_key: Tensor) -> None:
        super().__init__(embedding)
        self.log_rate, self.x_query, self.x_key = embedding.log_rate, x_query, x_key
        #: inverse of the scale of the logits, by which attention multiplies them
        self.root = math.sqrt(embedding.channels * embedding.coefficients)

    def encode_query(self, q: Tensor) -> Tensor:
        x, rate = self.x_query, (self.log_rate.exp() * self.root)[:, None, None]
        return _widen(q, rate.to(x.dtype) * torch.cat([2 * x, -torch.ones_like(x[..., :1])], dim=-1)[:, None])

    def encode_key(self, k: Tensor) -> Tensor:
        x = self.x_key
        return _widen(k, torch.cat([x, x.square().sum(dim=-1, keepdim=True)], dim=-1)[:, None])

    def encode_value(self, v: Tensor) -> Tensor:
        return _widen(v, self.x_key.new_zeros(1, 1, 1, 3))

    def decode(self, out: Tensor) -> Tensor:
        return super().decode(out[..., :-3])

    def bias(self, x_query: Tensor, x_key: Tensor, heads: slice = slice(None)) -> Tensor | None:
        """None: the further dimensions have it."""


def _widen(coefficients: Tensor, extra: Tensor) -> Tensor:
    """Flattened coefficients (b, h, t, c, r) with further dimensions (b or 1, h or 1, t or 1, 3)."""
    flat = coefficients.flatten(-2)
    return torch.cat([flat, extra.expand(*flat.shape[:-1], -1)], dim=-1)


class RadialBias(PositionEmbedding):
    r"""A learned function of distance for each head, equation (19) of docs/mathematics.md: the logits get $\beta_h(|x_t - x_s|)$.

    $\beta_h(\delta) = \sum_j \kappa_{hj} \exp\bigl(-\tfrac12 (\delta - \mu_j)^2 / \Delta^2\bigr)$ with centers $\mu_j$ evenly spaced
    from 0 to `extent` and $\Delta$ their spacing, as in SchNet (Schütt et al., 2017, https://arxiv.org/abs/1706.08566); zero
    at first. Stores heads × tokens² for all pairs (once, not for each sample, on a grid), and heads × pairs with a
    neighborhood.

    Args:
        head_type: field type of one head.
        num_heads: number of heads.
        extent: distance that the centers reach to, in the units of the positions; farther off the bias fades to zero.
        centers: number of basis functions.

    Raises:
        TypeError: if the extent is no number, or `centers` no integer.
        ValueError: if the extent is not positive and finite, or there are fewer than two centers.

    Examples:
        >>> import torch
        >>> from escnn_attn import Disc, RadialBias, SteerableSelfAttention, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("SO2"), 4, 1)
        >>> attention = SteerableSelfAttention(t, num_heads=2, position=RadialBias, neighborhood=Disc(3.0))
        >>> attention(t(torch.randn(1, 12, 8, 8))).shape
        torch.Size([1, 12, 8, 8])
    """

    def __init__(self, head_type: FieldType, num_heads: int, *, extent: float = 10.0, centers: int = 16) -> None:
        super().__init__(head_type, num_heads)
        self.extent, self.centers = require_positive("extent", extent), require_integer("centers", centers, 2)
        self.weight = nn.Parameter(torch.zeros(self.num_heads, self.centers))

    def bias(self, x_query: Tensor, x_key: Tensor) -> Tensor:
        distance = distances(x_query, x_key) * ((self.centers - 1) / self.extent)
        return radial_sum(distance, self.weight.to(distance.dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, extent={self.extent:g}, centers={self.centers}"
