"""From fields over the plane to one tensor per sample."""

from abc import abstractmethod

from escnn.gspaces import no_base_space
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from typing_extensions import Unpack

from escnn_attn.fields import require_planar
from escnn_attn.functional import invariants, token_mean
from escnn_attn.nn.modules import IsotypicModule, TakesDomain
from escnn_attn.tokens import DomainOptions, Tokens, grid_of, in_similar_sizes, require_input


class PoolingModule(IsotypicModule, TakesDomain):
    """A module from tokens to one tensor per sample, of fields without base space.

    A subclass implements `pool_tokens`.

    Args:
        in_type: field type of the input.
        out_type: field type of the output, on `escnn.gspaces.no_base_space` of the same group.

    Shape:
        (b, in_type.size, height, width), or (points, in_type.size) of b clouds, to (b, out_type.size).

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
        if not isinstance(out_type, FieldType):
            raise TypeError(f"expected out_type to be an escnn.nn.FieldType, got {out_type!r}")
        if out_type.gspace.dimensionality or out_type.fibergroup != in_type.fibergroup:
            raise TypeError(f"expected an out_type without base space of {in_type.fibergroup}, got {out_type}")
        self.out_type = out_type

    @abstractmethod
    def pool_tokens(self, tokens: Tokens) -> Tensor:
        """The pooled fields (b, c) of tokens."""

    @in_similar_sizes
    def forward(self, x: GeometricTensor | Tokens, **options: Unpack[DomainOptions]) -> GeometricTensor | Tensor:
        """Pools a grid or flattened point clouds, or tokens to plain fields (b, c); the arguments are those of `TokenModule.forward`."""
        if isinstance(x, Tokens):
            return self.pool_tokens(x)
        tokens = Tokens.of(require_input(x, self.in_type, self), self.in_layout, **options)
        return GeometricTensor(self.pool_tokens(tokens), self.out_type)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The pooled fields (b, c') of plain tensors (b, c, height, width)."""
        return self.pool_tokens(Tokens.on(grid_of(x), x, self.in_layout))

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(b, c') for a grid; for points the number of clouds is not in the shape, and 1 is assumed."""
        batch = super().evaluate_output_shape(input_shape)[0] if len(input_shape) == 4 else 1
        return (batch, self.out_type.size)


class InvariantPooling(PoolingModule):
    r"""Invariants of a whole sample: the trivial copies and the norms of the other irrep copies, averaged over tokens.

    $\sum_t \omega_t\,I(y_t) / \sum_t \omega_t$, equation (23) of docs/mathematics.md, with $I$ the trivial copies with their signs and
    the norms of the others, and $\omega$ the `quadrature_weights`, equal by default. The output is a tensor of trivial fields without base space, ready for `escnn.nn.Linear`.

    Args:
        in_type: any field type on the plane.

    Shape:
        (b, c, height, width), or (points, c) of b clouds, to (b, number of irrep copies).

    Raises:
        TypeError: if the type is not one on the plane.

    Examples:
        >>> import torch
        >>> from escnn_attn import InvariantPooling, fourier_type, planar_gspace
        >>> pool = InvariantPooling(fourier_type(planar_gspace("SO2"), 4, 3))
        >>> pool(pool.in_type(torch.randn(2, 28, 5, 5))).shape
        torch.Size([2, 16])
    """

    def __init__(self, in_type: FieldType) -> None:
        space = no_base_space(require_planar(in_type).fibergroup)
        copies = sum(len(rho.irreps) for rho in in_type.representations)
        super().__init__(in_type, FieldType(space, [space.trivial_repr] * copies))

    def pool_tokens(self, tokens: Tokens) -> Tensor:
        values = invariants(tokens.features, self.in_layout.irreps.trivial)
        return token_mean(values, tokens.domain.mask, tokens.domain.quadrature_weights)
