"""Irreps with multiplicities: one type for the contents of fields, functions on the group, and linear maps."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from escnn.group import Group

from escnn_attn.arguments import require_positive

#: as `group.irrep(*id)` takes it
IrrepId = tuple[int, ...]

#: basis of the matrices that commute with an irrep of the plane's groups, in escnn's basis: the identity and, for complex types, J
ENDOMORPHISMS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]]])


@dataclass(frozen=True)
class Irreps:
    r"""Irreps of a group with multiplicities, $\bigoplus_\psi m_\psi\,\psi$, by plain numbers.

    Attributes:
        ids: the id of each irrep.
        dims: the dimension of each.
        endomorphisms: the dimension of the space of maps that commute with each: 1, or 2 for complex types.
        trivial: whether each is the trivial irrep.
        multiplicities: the number of copies of each.

    Examples:
        >>> from escnn_attn import Irreps, planar_gspace
        >>> irreps = Irreps.of(planar_gspace("SO2").fibergroup, [(0,), (1,), (1,), (2,)])
        >>> irreps, irreps.size, irreps.times(3).multiplicities
        (1×(0,) + 2×(1,) + 1×(2,), 7, (3, 6, 3))
    """

    ids: tuple[IrrepId, ...]
    dims: tuple[int, ...]
    endomorphisms: tuple[int, ...]
    trivial: tuple[bool, ...]
    multiplicities: tuple[int, ...]

    @classmethod
    def of(cls, group: Group, ids: Iterable[IrrepId]) -> "Irreps":
        """The irreps of a list of ids, in the order of their first appearance, with the number of times each appears."""
        counts = Counter(ids)
        irreps = [group.irrep(*i) for i in counts]
        bases = [np.asarray(irrep.endomorphism_basis()) for irrep in irreps]
        for irrep, basis in zip(irreps, bases, strict=True):
            assert np.array_equal(basis, ENDOMORPHISMS[: len(basis), : irrep.size, : irrep.size]), f"{irrep}: {basis}"
        return cls(
            tuple(counts),
            tuple(irrep.size for irrep in irreps),
            tuple(len(basis) for basis in bases),
            tuple(irrep.is_trivial() for irrep in irreps),
            tuple(counts.values()),
        )

    @property
    def size(self) -> int:
        """Number of components: the sum of dimension times multiplicity."""
        return sum(d * m for d, m in zip(self.dims, self.multiplicities, strict=True))

    @property
    def num_copies(self) -> int:
        """Number of irrep copies: the sum of the multiplicities."""
        return sum(self.multiplicities)

    @property
    def trivial_index(self) -> int | None:
        """Index of the trivial irrep; None if it is not among them."""
        return self.trivial.index(True) if True in self.trivial else None

    def times(self, factor: float) -> "Irreps":
        """The same irreps with their multiplicities scaled by a positive factor, rounded, and at least 1."""
        factor = require_positive("factor", factor)
        return replace(self, multiplicities=tuple(max(1, round(factor * m)) for m in self.multiplicities))

    def __repr__(self) -> str:
        return " + ".join(f"{m}×{i}" for i, m in zip(self.ids, self.multiplicities, strict=True))
