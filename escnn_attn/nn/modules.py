"""Base classes of the layers: maps from tokens to tokens, from tokens and a context to tokens, and from tokens to one tensor."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

from escnn.group import GroupElement
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn
from typing_extensions import Unpack

from escnn_attn.fields import IsotypicLayout, require_planar
from escnn_attn.nn._export import ExportedModule
from escnn_attn.testing import Approximate, assert_equivariant, stated_tolerance
from escnn_attn.tokens import Domain, DomainOptions, Tokens, domain_of, grid_of, require_type


class PlanarModule(Approximate, EquivariantModule):
    """A module between two field types on one planar gspace: their check, shapes, the check of equivariance and the export.

    A subclass implements `forward`, on geometric tensors, and `forward_grid`, on plain ones.

    Args:
        in_type: field type of the input.
        out_type: field type of the output.

    Raises:
        TypeError: if the types are not on one planar gspace.

    Examples:
        >>> import torch
        >>> from escnn.nn import GeometricTensor
        >>> from escnn_attn import PlanarModule, field_type, planar_gspace
        >>> class Negative(PlanarModule):
        ...     def forward(self, x):
        ...         return GeometricTensor(self.forward_grid(x.tensor), self.out_type, x.coords)
        ...
        ...     def forward_grid(self, x):
        ...         return -x
        >>> t = field_type(planar_gspace("O2"), vectors=1)
        >>> len(Negative(t, t).check_equivariance())
        16
    """

    in_type: FieldType
    out_type: FieldType
    forward: Callable[..., Any]
    #: the module in terms of plain tensors (b, c, h, w), without any type
    forward_grid: Callable[..., Tensor]

    def __init__(self, in_type: FieldType, out_type: FieldType) -> None:
        super().__init__()
        require_planar(in_type)
        require_planar(out_type)
        if in_type.gspace != out_type.gspace:
            raise TypeError(f"expected types on one gspace, got {in_type.gspace} and {out_type.gspace}")
        self.in_type = in_type
        self.out_type = out_type

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input (b, c, height, width) or (points, c)."""
        if len(input_shape) not in (2, 4) or input_shape[1] != self.in_type.size:
            raise ValueError(
                f"expected a shape (b, {self.in_type.size}, h, w) or (points, {self.in_type.size}), got {input_shape}"
            )
        return (input_shape[0], self.out_type.size, *input_shape[2:])

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks random group elements on a point cloud, and exactly representable ones on a grid, in float64.

        Args:
            atol: unused, kept for escnn's signature: errors are relative.
            rtol: largest relative error; on points `testing.stated_tolerance`, where that is larger.

        Returns:
            the elements with their relative errors.

        Raises:
            AssertionError: if an error is larger.
        """
        on_points = assert_equivariant(self, domain="points", tolerance=max(rtol, stated_tolerance(self)))
        return on_points + assert_equivariant(self, domain="grid", tolerance=rtol)

    def export(self) -> nn.Module:
        """A copy in eval mode that maps plain tensors (b, c, h, w) by `forward_grid`, holds no field types, and pickles."""
        return ExportedModule(self)

    def extra_repr(self) -> str:
        if self.out_type is self.in_type or self.out_type == self.in_type:
            return f"in_type={self.in_type}"
        return f"in_type={self.in_type}, out_type={self.out_type}"

    def __repr__(self) -> str:
        """One line, or one more for each line of the equivariant modules inside: tables and parameters are left out."""
        inner = [f"  ({name}): {module!r}".replace("\n", "\n  ") for name, module in _equivariant_children(self)]
        if not inner:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n".join([f"{type(self).__name__}(", *inner, ")"])


def _equivariant_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{inner}", part) for inner, part in _equivariant_children(child))
        elif isinstance(child, EquivariantModule):
            yield name, child


class TakesDomain:
    """Mixin of modules whose `forward` takes `DomainOptions` beside its input: a `SequentialModule` passes them on."""


class IsotypicModule(PlanarModule):
    """A module that computes with isotypic features: common base of the three classes below.

    Args:
        in_type: field type of the input.
        out_type: field type of the output.
    """

    def __init__(self, in_type: FieldType, out_type: FieldType) -> None:
        super().__init__(in_type, out_type)
        self.in_layout = IsotypicLayout(in_type)
        self.out_layout = self.in_layout if out_type == in_type else IsotypicLayout(out_type)


class TokenModule(IsotypicModule, TakesDomain):
    """A module from tokens to tokens, and from geometric tensors to geometric tensors by converting to tokens and back.

    A subclass implements `forward_tokens`, on tokens in the isotypic layout of `in_type`.

    Args:
        in_type: field type of the input.
        out_type: field type of the output.

    Shape:
        (b, in_type.size, h, w) to (b, out_type.size, h, w), or (points, in_type.size) to (points, out_type.size).

    Raises:
        TypeError: if the types are not on one planar gspace.

    Examples:
        >>> import torch
        >>> from escnn_attn import TokenModule, fourier_type, planar_gspace
        >>> class Double(TokenModule):
        ...     def forward_tokens(self, tokens):
        ...         return tokens.with_features(tuple(2 * f for f in tokens.features))
        >>> t = fourier_type(planar_gspace("SO2"), 1, 1)
        >>> Double(t, t)(t(torch.ones(1, 3), torch.zeros(1, 2))).tensor
        tensor([[2., 2., 2.]])
    """

    @abstractmethod
    def forward_tokens(self, tokens: Tokens) -> Tokens:
        """The layer on tokens."""

    def forward(self, x: GeometricTensor, **options: Unpack[DomainOptions]) -> GeometricTensor:
        """Applies the layer to a grid or to flattened point clouds.

        Args:
            x: of type `in_type`: a grid (b, c, height, width), or points (points, c) with `coords` (points, 2).
            **options: where tokens are, as `tokens.domain_of` takes it: `batch` (points,), the index of each point's cloud, and
                `batch_size`, the number of clouds; `mask` (b, height, width) or (points,), True where a token counts;
                `quadrature_weights`, of the shape of a mask, the share of the plane that each token stands for, so that
                results do not depend on how densely a cloud is sampled; `edge_index` (2, edges), a graph for attention from
                key (first row) to query (second row).

        Raises:
            TypeError: if x is not of type `in_type`.
            ValueError: if another argument does not fit x.
        """
        tokens = Tokens.of(require_type(x, self.in_type), self.in_layout, **options)
        return self.forward_tokens(tokens).geometric(self.out_type, self.out_layout)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The layer on plain tensors, (b, c, h, w) to (b, c', h, w), without any type."""
        tokens = self.forward_tokens(Tokens.on(grid_of(x), x, self.in_layout))
        return tokens.domain.unpad(self.out_layout.merge(tokens.features))


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


class ContextModule(IsotypicModule):
    """A module from tokens and a context of tokens, of another type, resolution or domain, to tokens.

    A subclass implements `forward_tokens`.

    Args:
        in_type: field type of the input.
        context_type: field type of the context, on the same gspace.
        out_type: field type of the output.

    Shape:
        x (b, in_type.size, h, w) or (points, in_type.size), context (b, context_type.size, h', w') or
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
        if require_planar(context_type) != in_type.gspace:
            raise TypeError(f"expected types on one gspace, got {in_type.gspace} and {context_type.gspace}")
        self.context_type = context_type
        self.context_layout = IsotypicLayout(context_type)

    @abstractmethod
    def forward_tokens(self, tokens: Tokens, context: Tokens) -> Tokens:
        """The layer on tokens and their context, each on its own domain."""

    def forward(self, x: GeometricTensor, context: GeometricTensor, **options: Unpack[ContextOptions]) -> GeometricTensor:
        """Applies the layer to x and its context.

        Args:
            x: of type `in_type`, a grid (b, c, h, w) or points (points, c) with `coords`.
            context: of type `context_type`, of the same number of samples and in the same coordinates.
            **options: `batch` (points,) and `context_batch` (points',), the index of each point's cloud, and `batch_size`, the
                number of clouds, by default the larger of the two; `mask` and `context_mask`, (b, h, w) or (points,), True
                where a token counts; `context_quadrature_weights`, of the shape of `context_mask`; `edge_index` (2, edges),
                indices of points of the context (first row) and of x (second row); `spacing` and `context_spacing`, the
                distance between tokens of a grid, whose origin is at its center.

        Raises:
            TypeError: if x or the context is of another type.
            ValueError: if another argument does not fit, or x and the context have different numbers of samples.
        """
        tokens = self.forward_tokens(*self.tokens(x, context, **options))
        return tokens.geometric(self.out_type, self.out_layout)

    def tokens(self, x: GeometricTensor, context: GeometricTensor, **options: Unpack[ContextOptions]) -> tuple[Tokens, Tokens]:
        """The tokens of x and of its context; the arguments are those of `forward`."""
        x, context = require_type(x, self.in_type), require_type(context, self.context_type)
        at, around = _domains(x, context, **options)
        return Tokens.on(at, x.tensor, self.in_layout), Tokens.on(around, context.tensor, self.context_layout)

    def forward_grid(self, x: Tensor, context: Tensor) -> Tensor:
        """The layer on plain tensors of unit spacing, (b, c, h, w) and (b, c', h', w') to (b, c'', h, w)."""
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
) -> tuple[Domain, Domain]:
    """The domains of x and of its context."""
    sizes = [batch_size, *(int(i.max()) + 1 for i in (batch, context_batch) if i is not None and len(i))]
    sizes += [part.shape[0] for part in (x, context) if part.coords is None]
    samples = max(size for size in [*sizes, 1] if size is not None)
    size, around_size = (None if index is None else samples for index in (batch, context_batch))
    domain = _spaced(x, spacing, batch=batch, batch_size=size, mask=mask)
    around = _spaced(
        context,
        context_spacing,
        batch=context_batch,
        batch_size=around_size,
        mask=context_mask,
        quadrature_weights=context_quadrature_weights,
    )
    if domain.batch_size != around.batch_size:
        raise ValueError(f"x has {domain.batch_size} samples, but its context has {around.batch_size}")
    return (domain if edge_index is None else domain.along(edge_index, around)), around


def _spaced(x: GeometricTensor, spacing: float, **options: Unpack[DomainOptions]) -> Domain:
    if spacing == 1:
        return domain_of(x, **options)
    if x.coords is not None or options.get("batch") is not None:
        raise ValueError(f"expected a spacing for a grid alone, as points have coords instead, got {spacing}")
    return grid_of(x.tensor, spacing=spacing, mask=options.get("mask"), quadrature_weights=options.get("quadrature_weights"))


class PoolingModule(IsotypicModule, TakesDomain):
    """A module from tokens to one tensor per sample, of fields without base space.

    A subclass implements `pool_tokens`.

    Args:
        in_type: field type of the input.
        out_type: field type of the output, on `escnn.gspaces.no_base_space` of the same group.

    Shape:
        (b, in_type.size, h, w), or (points, in_type.size) of b clouds, to (b, out_type.size).

    Raises:
        TypeError: if `in_type` is not on the plane, or the groups differ.

    Examples:
        >>> import torch
        >>> from escnn.gspaces import no_base_space
        >>> from escnn.nn import FieldType
        >>> from escnn_attn import PoolingModule, field_type, planar_gspace
        >>> class Mean(PoolingModule):
        ...     def pool_tokens(self, tokens):
        ...         return tokens.features[0][0].mean(dim=1)
        >>> t = field_type(planar_gspace("C4"), scalars=2)
        >>> space = no_base_space(t.fibergroup)
        >>> Mean(t, FieldType(space, [space.trivial_repr] * 2))(t(torch.randn(3, 2, 5, 5))).shape
        torch.Size([3, 2])
    """

    def __init__(self, in_type: FieldType, out_type: FieldType) -> None:
        super().__init__(in_type, in_type)
        if out_type.gspace.dimensionality or out_type.fibergroup != in_type.fibergroup:
            raise TypeError(f"expected an out_type without base space of {in_type.fibergroup}, got {out_type}")
        self.out_type = out_type

    @abstractmethod
    def pool_tokens(self, tokens: Tokens) -> Tensor:
        """The pooled fields (b, c) of tokens."""

    def forward(self, x: GeometricTensor, **options: Unpack[DomainOptions]) -> GeometricTensor:
        """Pools a grid or flattened point clouds; the arguments are those of `TokenModule.forward`."""
        tokens = Tokens.of(require_type(x, self.in_type), self.in_layout, **options)
        return GeometricTensor(self.pool_tokens(tokens), self.out_type)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The pooled fields (b, c') of plain tensors (b, c, h, w)."""
        return self.pool_tokens(Tokens.on(grid_of(x), x, self.in_layout))

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(b, c') for a grid; for points the number of clouds is not in the shape, and 1 is assumed."""
        batch = super().evaluate_output_shape(input_shape)[0] if len(input_shape) == 4 else 1
        return (batch, self.out_type.size)
