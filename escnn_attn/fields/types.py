"""Field types and planar gspaces by name."""

import re
from collections.abc import Mapping

import numpy as np
from escnn.group import Group, Representation
from escnn.gspaces import GSpace, GSpace2D, flipRot2dOnR2, rot2dOnR2, trivialOnR2
from escnn.nn import FieldType

from escnn_attn.arguments import require_instance, require_integer
from escnn_attn.fields.functions import band_limit, band_limited_irreps
from escnn_attn.fields.irreps import IrrepId

Fields = FieldType | Mapping[str, int] | int


def planar_gspace(name: str) -> GSpace2D:
    """The gspace on the plane of a group given by name, so that configurations need only strings.

    Args:
        name: `"trivial"`, `"SO2"`, `"O2"`, `"C<N>"` or `"D<N>"` (N rotations, and N reflections).

    Raises:
        ValueError: for any other name.

    Examples:
        >>> from escnn_attn import planar_gspace
        >>> planar_gspace("D4").fibergroup
        D4
    """
    match = re.fullmatch(r"(trivial|SO2|O2|([CD])([1-9]\d*))", name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(f'unknown group {name!r}: expected "trivial", "SO2", "O2", "C<N>" or "D<N>", such as "C8"')
    _, family, order = match.groups()
    if name == "trivial":
        return trivialOnR2()
    if family is None:
        return rot2dOnR2(-1) if name == "SO2" else flipRot2dOnR2(-1)
    return (rot2dOnR2 if family == "C" else flipRot2dOnR2)(int(order))


def require_planar(field_type: FieldType, name: str = "in_type") -> GSpace2D:
    """The gspace of a type on the plane, the base space this library is for; a TypeError, with the name of the argument, for any other."""
    if not isinstance(field_type, FieldType):
        raise TypeError(f"expected {name} to be an escnn.nn.FieldType, got {field_type!r}")
    if not isinstance(field_type.gspace, GSpace2D):
        raise TypeError(
            f"expected a field type on the plane (trivialOnR2, rot2dOnR2, flip2dOnR2 or flipRot2dOnR2 of escnn.gspaces), "
            f"got one on {field_type.gspace}"
        )
    return field_type.gspace


def frequency(group: Group, irrep: IrrepId) -> int:
    """The rotational frequency of an irrep."""
    return int(group.irrep(*irrep).attributes["frequency"])


def max_frequency(*types: FieldType) -> int:
    """The highest frequency in the types, at least 1 (at most what the group has)."""
    group = types[0].fibergroup
    highest = max(1, *(frequency(group, i) for t in types for r in dict.fromkeys(t.representations) for i in r.irreps))
    limit = band_limit(group)
    return highest if limit is None else min(highest, limit)


def spectral_representation(group: Group, max_frequency: int) -> Representation:
    """The band-limited regular representation, in its irreps basis: coefficients of functions on the group."""
    return group.spectral_regular_representation(*band_limited_irreps(group, max_frequency))


def require_spectral(field_type: FieldType) -> tuple[IrrepId, ...]:
    """Ids of the irreps of functions on the group, in the order of their coefficients; a ValueError for fields of another kind."""
    rho, group = field_type.representations[0], field_type.fibergroup
    limit = max(frequency(group, irrep) for irrep in rho.irreps)
    if not field_type.uniform or rho != spectral_representation(group, limit):
        raise ValueError(
            f"expected copies of one spectral representation (fourier_type with a max_frequency), got {field_type}"
        )
    return tuple(dict.fromkeys(rho.irreps))


def require_samples(field_type: FieldType, limit: int, num_samples: int | None) -> int | None:
    """A number of rotations to sample functions of a band limit on, None for a default.

    Raises:
        TypeError: if it is no integer.
        ValueError: if there are too few, or any for a finite group, which takes all its elements.
    """
    if num_samples is None:
        return None
    group = field_type.fibergroup
    if not group.continuous:
        raise ValueError(
            f"num_samples is for continuous groups, and {group} takes all its elements: leave it out, got {num_samples!r}"
        )
    count = require_integer("num_samples", num_samples, None)
    if count <= 2 * limit:
        raise ValueError(f"num_samples: band limit {limit} needs more than {2 * limit} samples, got {num_samples!r}")
    return count


def spectral_type(gspace: GSpace, channels: int, max_frequency: int) -> FieldType:
    """`channels` functions on the group, as Fourier coefficients: the type of attention heads and hidden layers."""
    return FieldType(gspace, [spectral_representation(gspace.fibergroup, max_frequency)] * channels)


def fourier_type(gspace: GSpace, channels: int, max_frequency: int | None = None) -> FieldType:
    """`channels` copies of the (band-limited) regular representation.

    For SO(2) and O(2) it equals `escnn.nn.FourierELU(gspace, channels, irreps=...).in_type`. For finite groups it is
    `channels` × `regular_repr`, or, with `max_frequency`, the band-limited spectral type.

    Args:
        gspace: a gspace on the plane.
        channels: number of fields.
        max_frequency: band limit L, required for continuous groups.

    Raises:
        TypeError: if `gspace` is none, or a number is no integer.
        ValueError: if `channels` is not positive, `max_frequency` is more than the group has, or missing for a continuous group.

    Examples:
        >>> from escnn_attn import fourier_type, planar_gspace
        >>> fourier_type(planar_gspace("SO2"), 3, 2).size
        15
        >>> fourier_type(planar_gspace("C4"), 3).size
        12
    """
    channels, group = require_integer("channels", channels), require_instance("gspace", gspace, GSpace).fibergroup
    if max_frequency is not None:
        return spectral_type(gspace, channels, require_integer("max_frequency", max_frequency, 0, band_limit(group)))
    if gspace.fibergroup.continuous:
        raise ValueError(f"{gspace.fibergroup} has infinitely many irreps: max_frequency is required, got None")
    return FieldType(gspace, [gspace.regular_repr] * channels)


def field_type(gspace: GSpace, *, scalars: int = 0, vectors: int = 0, pseudoscalars: int = 0) -> FieldType:
    """A type of scalar fields, followed by vector fields, which rotate as positions do, and by pseudoscalars.

    Args:
        gspace: a gspace on the plane.
        scalars: number of trivial fields.
        vectors: number of fields of `gspace.basespace_action`, such as velocities; under reflections `irrep(1, 1)` of O(2)
            is another representation.
        pseudoscalars: number of fields that only reflections change, by their sign, such as the vorticity of a flow.

    Raises:
        ValueError: if a number is negative, or all are zero.

    Examples:
        >>> from escnn_attn import field_type, planar_gspace
        >>> field_type(planar_gspace("O2"), scalars=1, vectors=2).size
        5
    """
    require_instance("gspace", gspace, GSpace)
    given = {"scalars": scalars, "vectors": vectors, "pseudoscalars": pseudoscalars}
    counts = [require_integer(name, value, None) for name, value in given.items()]
    if min(counts) < 0 or sum(counts) == 0:
        raise ValueError(f"expected scalars, vectors or pseudoscalars, got {scalars}, {vectors} and {pseudoscalars}")
    kinds = [gspace.trivial_repr, gspace.basespace_action, _sign(gspace)]
    return FieldType(gspace, [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)])


def _sign(gspace: GSpace) -> Representation:
    """The sign of reflections; for a group of rotations the trivial representation."""
    elements = gspace.fibergroup.testing_elements()
    if all(np.linalg.det(gspace.basespace_action(g)) > 0 for g in elements):
        return gspace.trivial_repr
    return gspace.irrep(1, *gspace.trivial_repr.irreps[0][1:])


def as_field_type(gspace: GSpace, fields: Fields, name: str = "in_type") -> FieldType:
    """A field type, given as a number of scalars, as arguments of `field_type`, or as itself: configurations hold plain numbers."""
    if isinstance(fields, FieldType):
        if fields.gspace != gspace:
            raise TypeError(f"expected a field type on {gspace}, got one on {fields.gspace}")
        return fields
    if not isinstance(fields, Mapping):
        return field_type(gspace, scalars=require_integer(name, fields))
    if fields.keys() - {"scalars", "vectors", "pseudoscalars"}:
        raise ValueError(
            f"{name} must be a number of scalars, a mapping of scalars, vectors and pseudoscalars, or a field type, got {fields!r}"
        )
    return field_type(gspace, **fields)
