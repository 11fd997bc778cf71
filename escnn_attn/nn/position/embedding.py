"""Base classes of position embeddings, and of their encodings for one call of attention."""

from collections.abc import Callable, Sequence

from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.arguments import require_instance, require_integer
from escnn_attn.fields import require_planar
from escnn_attn.testing import Approximate
from escnn_attn.tokens import Domain

#: between a query and a key of it: a number, a tensor where it cannot be read, or None for the largest between all tokens
Distance = float | Tensor | None


class PositionEmbedding(nn.Module, Approximate):
    r"""Base class: the parameters by which attention sees positions; as it is, attention does not see them.

    A subclass overrides `bias`, for terms of the logits that depend on positions, or `at`, to encode queries, keys and values.
    Attention stays equivariant if biases depend on distances alone, and as `Encoding` says.

    Args:
        head_type: field type of one head, c copies of a representation with r coefficients.
        num_heads: number of heads h.

    Raises:
        TypeError: if the type is not one on the plane, or the number no integer.
        ValueError: if num_heads < 1.

    Shape:
        bias: positions (b or 1, t, 2) and (b or 1, s, 2) to logits that broadcast to (b, h, t, s), or None. With a neighborhood,
        it is called for tiles of a grid or for the edges of a graph (b of them, t = s = 1), so it must depend on positions alone.

    Examples:
        >>> from escnn_attn import PositionEmbedding, SteerableSelfAttention, fourier_type, planar_gspace, testing
        >>> class NearIsGood(PositionEmbedding):
        ...     def bias(self, x_query, x_key):  # torch.cdist rounds the distance of a point to itself
        ...         return -(x_query[:, :, None] - x_key[:, None]).norm(dim=-1)[:, None]
        >>> attention = SteerableSelfAttention(fourier_type(planar_gspace("SO2"), 4, 1), num_heads=2, position=NearIsGood)
        >>> errors = testing.assert_equivariant(attention, domain="points")
    """

    #: initial factor of attention outputs, so that they have the scale of the input where encoded values average out
    initial_gain: float = 1.0

    def __init__(self, head_type: FieldType, num_heads: int) -> None:
        super().__init__()
        require_planar(head_type, "head_type")
        self.num_heads = require_integer("num_heads", num_heads)
        self.channels = len(head_type)
        self.coefficients = head_type.size // len(head_type)

    def bias(self, x_query: Tensor, x_key: Tensor) -> Tensor | None:
        """Terms of the logits."""
        return None

    @property
    def radii(self) -> Sequence[float | None]:
        """How far the heads of each group see where the layer has no neighborhood; None for all tokens."""
        return [None]

    def at(self, query: Domain, key: Domain, distances: Sequence[Distance] = (None,)) -> "Encoding":
        """The encoding for attention from the tokens of one domain to those of another, about the same center.

        Args:
            query: domain of the queries.
            key: domain of the keys.
            distances: largest distance between a query and a key of it, a tensor where it cannot be read; None for that of all tokens. One
                for each of the `radii`, or one for all heads.
        """
        return Encoding(self)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, channels={self.channels}, coefficients={self.coefficients}"


#: called with the head type and the number of heads: a `PositionEmbedding` class, or a `functools.partial` of one
PositionFactory = Callable[[FieldType, int], PositionEmbedding]


class Encoding:
    """Queries, keys and values with their positions in them, for one call of attention; as it is, without positions.

    The domain of the queries caches it, so it must hold no functions of parameters, but the parameters.

    Attention weights stay invariant, and outputs equivariant, if inner products of encoded queries and keys are invariant and
    `decode` of a weighted sum of encoded values is equivariant.

    Args:
        embedding: with the parameters.

    Shape:
        encode_query, encode_key, encode_value: coefficients (b, h, t, c, r) to (b, h, t, width), of equal widths; decode:
        (b, h, t, width) to (b, h, t, c, r).

    Examples:
        >>> import torch
        >>> from escnn_attn import Encoding, Grid, NoPosition, fourier_type, planar_gspace
        >>> embedding = NoPosition(fourier_type(planar_gspace("SO2"), 4, 1), num_heads=2)
        >>> encoding = embedding.at(Grid(3, 3), Grid(3, 3))
        >>> encoding.encode_query(torch.randn(1, 2, 9, 4, 3)).shape
        torch.Size([1, 2, 9, 12])
    """

    def __init__(self, embedding: PositionEmbedding) -> None:
        self.embedding = embedding

    @property
    def heads(self) -> list[slice]:
        """Groups of heads of equal encoded width, each for a fused call of its own."""
        return [slice(None)]

    def encode_queries(self, functions: Tensor) -> list[Tensor]:
        """Queries (b, t, r, 1, h, c), encoded for each group of heads."""
        return [self._encoded("encode_query", _coefficients(functions[:, :, :, 0]))]

    def encode_context(self, functions: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (b, s, r, 2, h, c), encoded for each group of heads."""
        key, value = functions.unbind(3)
        return [(self._encoded("encode_key", _coefficients(key)), self._encoded("encode_value", _coefficients(value)))]

    def decode_groups(self, mixed: Sequence[Tensor]) -> Tensor:
        """Sums of encoded values of each group of heads as functions (b, t, r, h, c)."""
        out, shape = self.decode(mixed[0]), (*mixed[0].shape[:3], self.embedding.channels, self.embedding.coefficients)
        if out.shape != shape:
            raise ValueError(f"expected {shape} (b, h, t, c, r) from {type(self).__name__}.decode, got {tuple(out.shape)}")
        return out.permute(0, 2, 4, 1, 3)

    def _encoded(self, method: str, coefficients: Tensor) -> Tensor:
        """What a method of a subclass makes of coefficients (b, h, t, c, r): (b, h, t, width), or a ValueError."""
        encoded = getattr(self, method)(coefficients)
        if encoded.dim() != 4 or encoded.shape[:3] != coefficients.shape[:3]:
            raise ValueError(
                f"expected {(*coefficients.shape[:3], 'width')} (b, h, t, width) from {type(self).__name__}.{method}, "
                f"got {tuple(encoded.shape)}"
            )
        return encoded

    def encode_query(self, q: Tensor) -> Tensor:
        return q.flatten(-2)

    def encode_key(self, k: Tensor) -> Tensor:
        return k.flatten(-2)

    def encode_value(self, v: Tensor) -> Tensor:
        return v.flatten(-2)

    def decode(self, out: Tensor) -> Tensor:
        return out.unflatten(-1, (self.embedding.channels, self.embedding.coefficients))

    def bias(self, x_query: Tensor, x_key: Tensor, heads: slice = slice(None)) -> Tensor | None:
        """Logits (b or 1, h or 1, t or 1, s or 1) of some heads, or None.

        Raises:
            TypeError: if the bias of the embedding is no tensor of floating-point numbers.
            ValueError: if it has another shape, or samples could be taken for heads.
        """
        logits = self.embedding.bias(x_query, x_key)
        if logits is None:
            return None
        logits = _require_bias(self.embedding, logits, x_query, x_key)
        return logits if logits.shape[1] == 1 else logits[:, heads]


def _require_bias(embedding: PositionEmbedding, bias: Tensor, x_query: Tensor, x_key: Tensor) -> Tensor:
    """A bias that broadcasts to (b, h, t, s), with four axes: torch would add one of another shape to other pairs, or not at all."""
    name = f"bias of {type(embedding).__name__}"
    if not require_instance(name, bias, Tensor).is_floating_point():
        raise TypeError(f"expected a {name} of floating-point numbers, which are added to logits, got {bias.dtype}")
    samples = x_key.shape[0] if x_query.shape[0] == 1 else x_query.shape[0]
    full = (samples, embedding.num_heads, x_query.shape[1], x_key.shape[1])
    shape = (1,) * (4 - bias.dim()) + bias.shape
    unclear = samples != 1 and bias.dim() < 4 and max(bias.shape[-2:], default=1) > 1  # may be samples, not heads
    # first the whole size, which compilers know to be equal where they do not know its number
    if unclear or len(shape) != 4 or any(size != whole and size != 1 for size, whole in zip(shape, full, strict=True)):
        of = f" of {samples} samples" if samples != 1 else ""
        raise ValueError(f"expected a {name} (b or 1, h or 1, t, s){of} that broadcasts to {full}, got {tuple(bias.shape)}")
    return bias.reshape(shape)


def _coefficients(functions: Tensor) -> Tensor:
    """Functions (b, t, r, h, c) as coefficients (b, h, t, c, r)."""
    return functions.permute(0, 3, 1, 4, 2)


class NoPosition(PositionEmbedding):
    """Attention that does not see positions: permutation equivariant on top of the symmetries, and global on periodic domains too.

    Args:
        head_type: field type of one head.
        num_heads: number of heads.

    Examples:
        >>> from escnn_attn import NoPosition, SteerableSelfAttention, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("C4"), 2)
        >>> SteerableSelfAttention(t, num_heads=1, position=NoPosition).position
        NoPosition(num_heads=1, channels=2, coefficients=4)
    """
