"""Base class of the layers with a context."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from typing_extensions import Unpack

from escnn_attn.arguments import require_integer, require_positive
from escnn_attn.fields import IsotypicLayout, require_planar
from escnn_attn.nn.modules import IsotypicModule
from escnn_attn.tokens import (
    Domain,
    DomainOptions,
    Tokens,
    domain_of,
    grid_of,
    require_input,
    require_no_options,
    require_tensor,
)


class ContextOptions(TypedDict, total=False):
    """Keyword arguments of the `forward` of modules with a context (see `ContextModule.forward`)."""

    batch: Tensor | None
    batch_size: int | None
    mask: Tensor | None
    edge_index: Tensor | None
    spacing: float
    context_batch: Tensor | None
    context_mask: Tensor | None
    context_quadrature_weights: Tensor | None
    context_spacing: float
    periodic: bool
    cell: Sequence[float] | None


class ContextModule(IsotypicModule):
    """A module from tokens and a context of tokens, of another type, resolution or domain, to tokens.

    A subclass implements `forward_tokens`.

    Args:
        in_type: field type of the input.
        context_type: field type of the context, on the same gspace.
        out_type: field type of the output.

    Shape:
        x (b, in_type.size, height, width) or (points, in_type.size), context (b, context_type.size, height', width') or
        (points', context_type.size), to x with out_type.size channels.

    Raises:
        TypeError: if the types are not on one planar gspace.

    Examples:
        >>> import torch
        >>> from escnn_attn import ContextModule, field_type, planar_gspace
        >>> class AddMean(ContextModule):
        ...     def forward_tokens(self, tokens, context):
        ...         pairs = zip(tokens.features, context.features)
        ...         return tokens.with_features(tuple(x + y.mean(dim=2, keepdim=True) for x, y in pairs))
        >>> t = field_type(planar_gspace("O2"), scalars=1)
        >>> AddMean(t, t, t)(t(torch.zeros(1, 1, 2, 2)), t(torch.ones(3, 1), torch.rand(3, 2))).tensor.mean()
        tensor(1.)
    """

    def __init__(self, in_type: FieldType, context_type: FieldType, out_type: FieldType) -> None:
        super().__init__(in_type, out_type)
        if require_planar(context_type, "context_type") != in_type.gspace:
            raise TypeError(f"expected types on one gspace, got {in_type.gspace} and {context_type.gspace}")
        self.context_type = context_type
        self.context_layout = IsotypicLayout(context_type)

    @abstractmethod
    def forward_tokens(self, tokens: Tokens, context: Tokens) -> Tokens:
        """The layer on tokens and their context, each on its own domain."""

    def forward(
        self, x: GeometricTensor | Tokens, context: GeometricTensor | Tokens, **options: Unpack[ContextOptions]
    ) -> GeometricTensor | Tokens:
        """Applies the layer to x and its context, or to the tokens of both.

        Args:
            x: of type `in_type`, a grid (b, c, height, width) or points (points, c) with `coords`; or tokens, for tokens.
            context: of type `context_type`, of the same number of samples and in the same coordinates; tokens if x is.
            **options: `batch` (points,) and `context_batch` (points',), the index of each point's cloud, and `batch_size`, the
                number of clouds, by default the larger of the two; `mask` and `context_mask`, (b, height, width) or (points,), True
                where a token counts; `context_quadrature_weights`, of the shape of `context_mask`; `edge_index` (2, edges),
                indices of points of the context (first row) and of x (second row); `spacing` and `context_spacing`, the
                distance between tokens of a grid, whose origin is at its center; `periodic`, whether the grids repeat, and
                `cell`, the width and height of the rectangle that points repeat: that of a grid is its size.

        Raises:
            TypeError: if x or the context is of another type, or another argument goes with tokens.
            ValueError: if another argument does not fit, or x and the context have different numbers of samples.
        """
        if isinstance(x, Tokens) and isinstance(context, Tokens):
            require_no_options(options)
            return self.forward_tokens(x, context)
        tokens = self.forward_tokens(*self.tokens(x, context, **options))
        return tokens.geometric(self.out_type, self.out_layout)

    def tokens(self, x: object, context: object, **options: Unpack[ContextOptions]) -> tuple[Tokens, Tokens]:
        """The tokens of x and of its context; the arguments are those of `forward`."""
        x, context = require_input(x, self.in_type, self), require_input(context, self.context_type, self)
        at, around = _domains(x, context, **options)
        return Tokens.on(at, x.tensor, self.in_layout), Tokens.on(around, context.tensor, self.context_layout)

    def forward_grid(self, x: Tensor, context: Tensor) -> Tensor:
        """The layer on plain tensors of unit spacing, (b, c, height, width) and (b, c', height', width') to (b, c'', height, width)."""
        at = Tokens.on(grid_of(x), x, self.in_layout)
        tokens = self.forward_tokens(at, Tokens.on(grid_of(context), context, self.context_layout))
        return tokens.domain.unpad(self.out_layout.merge(tokens.features))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, context_type={self.context_type}"


def _domains(
    x: GeometricTensor,
    context: GeometricTensor,
    *,
    batch: Tensor | None = None,
    batch_size: int | None = None,
    mask: Tensor | None = None,
    edge_index: Tensor | None = None,
    spacing: float = 1.0,
    context_batch: Tensor | None = None,
    context_mask: Tensor | None = None,
    context_quadrature_weights: Tensor | None = None,
    context_spacing: float = 1.0,
    periodic: bool = False,
    cell: Sequence[float] | None = None,
) -> tuple[Domain, Domain]:
    """The domains of x and of its context."""
    batch_size = None if batch_size is None else require_integer("batch_size", batch_size, 0)
    if batch_size not in (None, 1) and not any(y is not None for y in (batch, context_batch)) and context.coords is not None:
        raise ValueError(f"batch_size is {batch_size!r}, but there is no batch or context_batch to tell the clouds apart")
    indices = [require_tensor(index, "batch") for index in (batch, context_batch) if index is not None]
    sizes = [batch_size, *(int(index.max()) + 1 for index in indices if len(index))]
    sizes += [part.shape[0] for part in (x, context) if part.coords is None]
    samples = max(size for size in [*sizes, 1] if size is not None)
    if not indices:  # a batch_size that no index goes with is checked against each
        size, around_size = batch_size, batch_size
    else:
        size, around_size = (None if index is None else samples for index in (batch, context_batch))
    own, others = _repeating(x, context, periodic, cell)
    domain = _spaced(x, spacing, batch=batch, batch_size=size, mask=mask, periodic=own.periodic, cell=own.cell)
    around = _spaced(
        context,
        context_spacing,
        batch=context_batch,
        batch_size=around_size,
        mask=context_mask,
        quadrature_weights=context_quadrature_weights,
        periodic=others.periodic,
        cell=others.cell,
    )
    if domain.batch_size != around.batch_size:
        raise ValueError(f"x has {domain.batch_size} samples, but its context has {around.batch_size}")
    return (domain if edge_index is None else domain.along(edge_index, around)), around


class _Repeats(NamedTuple):
    """How a domain repeats, as `domain_of` takes it."""

    periodic: bool
    cell: Sequence[float] | None


def _repeating(
    x: GeometricTensor, context: GeometricTensor, periodic: bool, cell: Sequence[float] | None
) -> tuple[_Repeats, _Repeats]:
    """How x and its context repeat: of a grid and points each takes the argument that is for it."""
    both, grid, points = _Repeats(periodic, cell), _Repeats(periodic, None), _Repeats(False, cell)
    if (x.coords is None) == (context.coords is None):
        return both, both
    return (grid, points) if x.coords is None else (points, grid)


def _spaced(x: GeometricTensor, spacing: float, **options: Unpack[DomainOptions]) -> Domain:
    if require_positive("spacing", spacing) == 1 or (x.coords is None and options.get("cell") is not None):
        return domain_of(x, **options)  # which refuses the cell of a grid
    if x.coords is not None or options.get("batch") is not None:
        raise ValueError(f"expected a spacing for a grid alone, as points have coords instead, got {spacing}")
    if options.get("batch_size") not in (None, x.shape[0]):
        raise ValueError(f"batch_size is {options.get('batch_size')}, but this grid has {x.shape[0]} samples")
    parts = {name: options.get(name) for name in ("mask", "quadrature_weights")}
    return grid_of(x.tensor, spacing=spacing, **parts, periodic=options.get("periodic", False))
