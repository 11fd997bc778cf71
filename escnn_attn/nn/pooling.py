"""From fields over the plane to invariants."""

from escnn.gspaces import no_base_space
from escnn.nn import FieldType
from torch import Tensor

from escnn_attn.fields import require_planar
from escnn_attn.functional import invariants, token_mean
from escnn_attn.nn.modules import PoolingModule
from escnn_attn.tokens import Tokens


class InvariantPooling(PoolingModule):
    r"""Invariants of a whole sample: the trivial copies and the norms of the other irrep copies, averaged over tokens.

    $y_c = \frac1T \sum_t |x_{c,t}|$, with the sign kept for trivial copies, and a weighted mean where tokens have
    `quadrature_weights`. The output is a tensor of trivial fields without base space, ready for `escnn.nn.Linear`.

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
        space = no_base_space(require_planar(in_type).fibergroup)
        copies = sum(len(rho.irreps) for rho in in_type.representations)
        super().__init__(in_type, FieldType(space, [space.trivial_repr] * copies))

    def pool_tokens(self, tokens: Tokens) -> Tensor:
        values = invariants(tokens.features, self.in_layout.irreps.trivial)
        return token_mean(values, tokens.domain.mask, tokens.domain.quadrature_weights)
