"""Steerable attention for any field type."""

from dataclasses import replace
from typing import Any

from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.fields.types import IsotypicLayout
from escnn_attn.nn.attention._heads import PositionFactory, SteerableAttention
from escnn_attn.nn.neighborhood.neighborhoods import Neighborhood
from escnn_attn.nn.position.rotary import RotaryEmbedding
from escnn_attn.tokens.domains import Domain, domain_of
from escnn_attn.tokens.tokens import Tokens, centerd_as, from_tokens, grid_tokens, require_type, spaced, to_tokens


class SteerableSelfAttention(SteerableAttention):
    r"""Multi-head self-attention that is equivariant to translations, rotations and reflections.

    Queries, keys and values are functions on the group, c for each head, obtained from the input by equivariant linear
    maps. With their position encodings $Q_i$, $K_j$, $V_j$ (rotary, by default; see `RotaryEmbedding`),

    $$\text{out}_i = W_o\,\mathrm{decode}_i\Bigl[\gamma_h \sum_{j \in \mathcal{N}(i)}
      \mathrm{softmax}_j\bigl(\langle Q_i, K_j\rangle / \sqrt{d}\bigr) V_j\Bigr],$$

    d the number of coefficients of a head, in one fused call with memory linear in the tokens. Inner products of
    fields that transform by one orthogonal representation are invariant, so the weights are. Scalars in and directed
    fields out make a lifting layer.

    Args:
        in_type: any field type on the plane.
        out_type: type of the output; None for `in_type`.
        num_heads: number of heads h.
        head_channels: functions c in a head, an even number for a rotary embedding; None for as many as make the heads
            as wide as the input (rounded up to even, at least 2).
        max_frequency: band limit of the functions; None for the highest frequency in the types, at least 1.
        position: a `PositionEmbedding` class or `functools.partial` of one, called with the head type and `num_heads`.
        neighborhood: the tokens $\mathcal{N}(i)$ that a token attends to, `Disc(radius)` or `KNearest(k)`; None for all.
        dropout: probability with which whole output fields are dropped in training.

    Shape:
        (b, in_type.size, h, w) to (b, out_type.size, h, w), or (points, in_type.size) to (points, out_type.size).

    Raises:
        TypeError: if the types are not on one planar gspace, or the neighborhood is none.
        ValueError: if a number does not make sense.

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
        super().__init__(
            in_type, in_type, in_type if out_type is None else out_type, num_heads=num_heads, head_channels=head_channels,
            max_frequency=max_frequency, position=position, neighborhood=neighborhood, dropout=dropout,
        )  # fmt: skip
        self.project_in = self._projection(self.in_layout.multiplicities, 3)
        self.project_out = self._output_map()

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        return self._mix(tokens, tokens, self._functions(self.project_in(tokens.features), 3), tokens.edges)

    def attention_weights(
        self,
        x: GeometricTensor,
        *,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        mask: Tensor | None = None,
        edge_index: Tensor | None = None,
        quadrature_weights: Tensor | None = None,
    ) -> Tensor:
        """The attention weights, (b, h, t, s), for inspection: unlike `forward`, this stores tokens²."""
        x = require_type(x, self.in_type)
        domain = domain_of(x, batch, batch_size)
        tokens = to_tokens(x, self.in_layout, domain, mask=mask, quadrature_weights=quadrature_weights, edge_index=edge_index)
        return self._weights(tokens, tokens, self._functions(self.project_in(tokens.features), 3), tokens.edges)


class SteerableCrossAttention(SteerableAttention):
    r"""Multi-head attention of one set of tokens to another: of another type, resolution or domain.

    The formula is that of `SteerableSelfAttention`, with queries from `x`, keys and values from `context`. Either may be a
    grid or flattened clouds, such as points that attend to an image. A grid has the origin at its center, and
    `spacing` (`context_spacing`) is the distance of its tokens, in the units of the other's coordinates: for tokens after
    a stride of 2 beside the full grid, 2.

    Args:
        in_type: any field type on the plane.
        context_type: type of the context, on the same gspace.
        out_type: type of the output; None for `in_type`.
        num_heads: number of heads.
        head_channels: fields of a head, as in `SteerableSelfAttention`.
        max_frequency: band limit of the head type, as there.
        position: makes the position embedding, as there.
        neighborhood: the tokens of the context that a token attends to; None for all.
        dropout: probability of dropping a field of the output.

    Shape:
        x (b, in_type.size, h, w) or (points, in_type.size), context (b, context_type.size, h', w') or
        (points', context_type.size), to x with out_type.size channels.

    Raises:
        TypeError: if the types are not on one planar gspace, or the neighborhood is none.
        ValueError: if a number does not make sense.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableCrossAttention, fourier_type, planar_gspace
        >>> so2 = planar_gspace("SO2")
        >>> points, image = fourier_type(so2, 4, 1), fourier_type(so2, 2, 2)
        >>> attention = SteerableCrossAttention(points, image, num_heads=2)
        >>> attention(points(torch.randn(6, 12), torch.randn(6, 2)), image(torch.randn(1, 10, 9, 9))).shape
        torch.Size([6, 12])
    """

    def __init__(
        self,
        in_type: FieldType,
        context_type: FieldType,
        out_type: FieldType | None = None,
        *,
        num_heads: int,
        head_channels: int | None = None,
        max_frequency: int | None = None,
        position: PositionFactory = RotaryEmbedding,
        neighborhood: Neighborhood | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            in_type, context_type, in_type if out_type is None else out_type, num_heads=num_heads, head_channels=head_channels,
            max_frequency=max_frequency, position=position, neighborhood=neighborhood, dropout=dropout,
        )  # fmt: skip
        self.context_type = context_type
        self.context_layout = IsotypicLayout(context_type)
        self.project_query = self._projection(self.in_layout.multiplicities, 1)
        self.project_context = self._projection(self.context_layout.multiplicities, 2)
        self.project_out = self._output_map()

    def forward_tokens(self, tokens: Tokens, context: Tokens) -> Tokens:
        """Attention of tokens to a context, whose positions are about the same center; along `tokens.edges` where given."""
        return self._mix(tokens, context, self._query_key_value(tokens, context), tokens.edges)

    def forward(
        self,
        x: GeometricTensor,
        context: GeometricTensor,
        *,
        batch: Tensor | None = None,
        context_batch: Tensor | None = None,
        batch_size: int | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        context_quadrature_weights: Tensor | None = None,
        edge_index: Tensor | None = None,
        spacing: float = 1.0,
        context_spacing: float = 1.0,
    ) -> GeometricTensor:
        """Attends from x to a context.

        Args:
            x: of type `in_type`, a grid (b, c, h, w) or points (points, c) with `coords`.
            context: of type `context_type`, as many samples; the same coordinates.
            batch: (points,) the cloud of each point of x; None for one cloud.
            context_batch: (points',) the cloud of each point of the context.
            batch_size: number of clouds; None for the larger of the two, or that of the grid.
            mask: (b, h, w) or (points,), True for tokens of x and False for padding.
            context_mask: the same for the context; tokens of x that nothing is left for get zeros.
            context_quadrature_weights: of the shape of `context_mask`, the share of the plane each token stands for.
            edge_index: (2, edges) indices of points of the context and of x: attention is along these edges.
            spacing: distance between tokens of x on a grid.
            context_spacing: distance between tokens of the context on a grid.

        Raises:
            TypeError: if x or the context is of another type.
            ValueError: if another argument does not fit, or x and the context have different numbers of samples.
        """
        tokens, around, domain = self._inputs(
            x, context, batch=batch, context_batch=context_batch, batch_size=batch_size, mask=mask, context_mask=context_mask,
            context_quadrature_weights=context_quadrature_weights, edge_index=edge_index, spacing=spacing, context_spacing=context_spacing,
        )  # fmt: skip
        return from_tokens(self.forward_tokens(tokens, around), self.out_type, self.out_layout, domain)

    def attention_weights(self, x: GeometricTensor, context: GeometricTensor, **where: Any) -> Tensor:
        """The attention weights, (b, h, t, s), for inspection: this stores all pairs. Further arguments are those of `forward`."""
        tokens, around, _ = self._inputs(x, context, **where)
        return self._weights(tokens, around, self._query_key_value(tokens, around), tokens.edges)

    def _inputs(
        self,
        x: GeometricTensor,
        context: GeometricTensor,
        *,
        batch: Tensor | None = None,
        context_batch: Tensor | None = None,
        batch_size: int | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        context_quadrature_weights: Tensor | None = None,
        edge_index: Tensor | None = None,
        spacing: float = 1.0,
        context_spacing: float = 1.0,
    ) -> tuple[Tokens, Tokens, Domain]:
        """Tokens of x and of its context about one center, and the domain of x."""
        x, context = require_type(x, self.in_type), require_type(context, self.context_type)
        sizes = [batch_size, *(int(i.max()) + 1 for i in (batch, context_batch) if i is not None and len(i))]
        sizes += [part.shape[0] for part in (x, context) if part.coords is None]
        clouds = max(size for size in [*sizes, 1] if size is not None)
        domain = domain_of(x, batch, clouds if batch is not None else None)
        context_domain = domain_of(context, context_batch, clouds if context_batch is not None else None)
        if domain.shape[0] != context_domain.shape[0]:
            raise ValueError(f"x has {domain.shape[0]} samples, but its context has {context_domain.shape[0]}")
        edges = None if edge_index is None else domain.edges(edge_index, context_domain)
        tokens = spaced(replace(to_tokens(x, self.in_layout, domain, mask=mask), edges=edges), spacing)
        around = to_tokens(
            context, self.context_layout, context_domain, mask=context_mask, quadrature_weights=context_quadrature_weights
        )
        around = spaced(around, context_spacing)
        return centerd_as(around, tokens), around, domain

    def forward_grid(self, x: Tensor, context: Tensor) -> Tensor:
        """The layer on plain tensors of unit spacing, (b, c, h, w) and (b, c', h', w') to (b, c'', h, w)."""
        tokens = self.forward_tokens(grid_tokens(x, self.in_layout), grid_tokens(context, self.context_layout))
        return self.out_layout.merge(tokens.features).unflatten(2, x.shape[2:])

    def _query_key_value(self, tokens: Tokens, context: Tokens) -> list[Tensor]:
        query = self._functions(self.project_query(tokens.features), 1)
        return [*query, *self._functions(self.project_context(context.features), 2)]
