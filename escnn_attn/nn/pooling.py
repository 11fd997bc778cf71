"""From fields over the plane to invariants."""

from escnn.gspaces import no_base_space
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.functional.attention import invariants, token_mean
from escnn_attn.nn.modules import TokenModule
from escnn_attn.tokens.domains import Domain
from escnn_attn.tokens.tokens import Tokens, grid_tokens


class InvariantPooling(TokenModule):
    r"""Invariants of a whole sample: the trivial copies and the norms of the other irrep copies, averaged over tokens.

    $y_c = \frac1T \sum_t |x_{c,t}|$, with the sign kept for trivial copies, and a weighted mean where tokens have
    `weights`. The output is a tensor of trivial fields
    without base space, ready for `escnn.nn.Linear`.

    Args:
        in_type: any field type on the plane.

    Shape:
        (b, c, h, w), or (points, c) of b clouds, to (b, number of irrep copies).

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
        super().__init__(in_type, in_type)
        group = in_type.fibergroup
        multiplicities = self.in_layout.multiplicities
        self.trivial = [group.irrep(*irrep).is_trivial() for irrep in multiplicities]
        space = no_base_space(group)
        self.out_type = FieldType(space, [space.trivial_repr] * sum(multiplicities.values()))

    def pool_tokens(self, tokens: Tokens) -> Tensor:
        """The invariants (b, c) of tokens."""
        return token_mean(invariants(tokens.features, self.trivial), tokens.mask, tokens.quadrature_weights)

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        raise TypeError("InvariantPooling ends a stack of tokens: call pool_tokens")

    def forward_grid(self, x: Tensor) -> Tensor:
        """The invariants (b, c') of plain tensors (b, c, h, w)."""
        return self.pool_tokens(grid_tokens(x, self.in_layout))

    def output(self, tokens: Tokens, domain: Domain) -> GeometricTensor:
        return GeometricTensor(self.pool_tokens(tokens), self.out_type)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(b, invariants) for a grid; for points the number of clouds is not in the shape, and one is assumed."""
        batch = super().evaluate_output_shape(input_shape)[0] if len(input_shape) == 4 else 1
        return (batch, self.out_type.size)
