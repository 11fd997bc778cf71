"""Isotypic coordinates of any field type."""

import numpy as np
import torch
from einops import rearrange
from escnn.group import Representation
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.arguments import require_instance
from escnn_attn.fields.buffers import ExactBuffer
from escnn_attn.fields.irreps import IrrepId, Irreps

#: isotypic features: one tensor (d, b, t, m) per irrep
Features = tuple[Tensor, ...]


class IsotypicLayout(nn.Module):
    r"""Any field type as isotypic features: for each irrep, all its copies in one tensor.

    With $\rho = T (\bigoplus_\psi m_\psi \psi) T^{-1}$, `split` applies $T^{-1}$ and gathers the copies of each $\psi$
    into a tensor (d, b, t, m): component of the irrep, batch, token, copy. `merge` is its inverse. Copies are ordered by
    field, then by their place inside the field; irreps by their first appearance.

    Args:
        field_type: any field type.

    Raises:
        TypeError: for anything else.

    Shape:
        split: (b, field_type.size, t) to one (d, b, t, m) for each irrep; merge: back.

    Examples:
        >>> import torch
        >>> from escnn.nn import FieldType
        >>> from escnn_attn import IsotypicLayout, planar_gspace
        >>> layout = IsotypicLayout(FieldType(planar_gspace("C4"), [planar_gspace("C4").regular_repr] * 3))
        >>> [tuple(f.shape) for f in layout.split(torch.randn(2, 12, 5))]
        [(1, 2, 5, 3), (2, 2, 5, 3), (1, 2, 5, 3)]
    """

    def __init__(self, field_type: FieldType) -> None:
        super().__init__()
        require_instance("field_type", field_type, FieldType)
        kinds: dict[Representation, list[int]] = {}
        for index, rho in enumerate(field_type.representations):
            kinds.setdefault(rho, []).append(index)
        self.counts, self.sizes = [len(fields) for fields in kinds.values()], [rho.size for rho in kinds]
        gather, copies = _by_kind(field_type, kinds)
        self.irreps = Irreps.of(field_type.fibergroup, (irrep for irrep, _ in copies))
        order = [
            place + component
            for irrep, d in zip(self.irreps.ids, self.irreps.dims, strict=True)
            for component in range(d)
            for other, place in copies
            if other == irrep
        ]
        self.gather, self.scatter = ExactBuffer(gather), ExactBuffer(np.argsort(gather))
        self.order, self.unorder = ExactBuffer(order), ExactBuffer(np.argsort(order))
        self.analysis = nn.ModuleList(_basis(rho.change_of_basis_inv) for rho in kinds)
        self.synthesis = nn.ModuleList(_basis(rho.change_of_basis) for rho in kinds)

    def split(self, x: Tensor) -> Features:
        """Isotypic features of fields (b, field_type.size, t)."""
        x = self._change(_select(x, self.gather), self.analysis)
        x = _select(x, self.order)
        dims, multiplicities = self.irreps.dims, self.irreps.multiplicities
        # in memory by tokens, as linear maps take it: a token is a row
        parts = x.mT.contiguous().split([d * m for d, m in zip(dims, multiplicities, strict=True)], dim=2)
        return tuple(rearrange(part, "b t (d m) -> d b t m", d=d) for part, d in zip(parts, dims, strict=True))

    def merge(self, features: Features) -> Tensor:
        """Fields (b, field_type.size, t) of isotypic features."""
        x = torch.cat([rearrange(f, "d b t m -> b (d m) t") for f in features], dim=1)
        return _select(self._change(_select(x, self.unorder), self.synthesis), self.scatter)

    def _change(self, x: Tensor, bases: nn.ModuleList) -> Tensor:
        """Applies each representation's change of basis to its fields, (b, size, t) to (b, size, t)."""
        if all(isinstance(basis, nn.Identity) for basis in bases):
            return x
        blocks = x.split([n * size for n, size in zip(self.counts, self.sizes, strict=True)], dim=1)
        changed = []
        for block, n, basis in zip(blocks, self.counts, bases, strict=True):
            if isinstance(basis, ExactBuffer):
                fields = block.unflatten(1, (n, -1))
                with torch.autocast(x.device.type, enabled=False):  # dtypes stay whether there is a change of basis or not
                    block = torch.einsum("ij,bnjt->bnit", basis.like(x), fields).flatten(1, 2)
            changed.append(block)
        return torch.cat(changed, dim=1)


def _select(x: Tensor, channels: ExactBuffer) -> Tensor:
    return x.index_select(1, channels.like(x))


def _by_kind(field_type: FieldType, kinds: dict[Representation, list[int]]) -> tuple[list[int], list[tuple[IrrepId, int]]]:
    """Channels with the fields of equal representations side by side, and each irrep copy with its place among them.

    Copies are ordered by field, then by their place inside the field.
    """
    starts, gather, copies = field_type.fields_start.astype(int), [], []
    for rho, fields in kinds.items():
        for field in fields:
            place = len(gather)
            gather += range(starts[field], starts[field] + rho.size)
            for copy, irrep in enumerate(rho.irreps):
                copies.append((field, copy, irrep, place))
                place += field_type.fibergroup.irrep(*irrep).size
    return gather, [(irrep, place) for *_, irrep, place in sorted(copies)]


def _basis(matrix: np.ndarray) -> nn.Module:
    return nn.Identity() if np.allclose(matrix, np.eye(len(matrix)), rtol=0, atol=1e-12) else ExactBuffer(matrix)
