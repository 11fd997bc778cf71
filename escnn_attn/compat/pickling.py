"""Groups, representations and types of escnn pickle by their names and numbers, and are shared by copies."""

from typing import Any, TypeVar

import numpy as np
from escnn.group import Group, IrreducibleRepresentation, Representation
from escnn.gspaces import GSpace, GSpace0D
from escnn.nn import FieldType

Shared = TypeVar("Shared")


def _share(value: Shared, memo: dict) -> Shared:
    """Groups, representations and field types are immutable: a copied module keeps the same ones, and checks stay by identity."""
    memo[id(value)] = value
    return value


def _reduce_group(group: Group) -> tuple:
    numbers = dict(group._keys)
    if hasattr(group, "_maximum_frequency"):
        numbers["maximum_frequency"] = group._maximum_frequency  # pyright: ignore[reportAttributeAccessIssue]
    return _the_group, (type(group), numbers)


def _the_group(kind: Any, numbers: dict[str, Any]) -> Group:
    """The one instance of a group that escnn keeps in a process."""
    return kind._generator(**numbers)


def _reduce_irrep(irrep: IrreducibleRepresentation) -> tuple:
    return irrep.group.irrep, irrep.id


def _reduce_representation(rho: Representation) -> tuple:
    options = {
        "name": rho.name,
        "irreps": list(rho.irreps),
        "change_of_basis": rho.change_of_basis,
        "change_of_basis_inv": rho.change_of_basis_inv,
        "supported_nonlinearities": sorted(rho.supported_nonlinearities),
    }
    return _representation, (rho.group, rho.group.representations.get(rho.name) is rho, options, rho.attributes)


def _representation(group: Group, kept: bool, options: dict[str, Any], attributes: dict[str, Any]) -> Representation:
    """The representation of that name which a group keeps, where it is the same; a new one elsewhere, which the group `kept`."""
    name, found = options["name"], group.representations.get(options["name"])
    if found is not None:
        same = found.irreps == options["irreps"] and np.allclose(found.change_of_basis, options["change_of_basis"])
        if not same:
            raise ValueError(f"expected the representation {name!r} that was pickled, but {group} has another one of that name")
        return found
    made = Representation(group, **options, **attributes)
    return group.representations.setdefault(name, made) if kept else made


def _reduce_space(space: GSpace) -> tuple:
    key = space.fibergroup if isinstance(space, GSpace0D) else space._sg_id  # pyright: ignore[reportAttributeAccessIssue]
    return type(space), (key,), {"name": space.name}


def _reduce_type(field_type: FieldType) -> tuple:
    return type(field_type), (field_type.gspace, field_type.representations)


def pickle_by_numbers() -> None:
    """Lets escnn's types be pickled: their functions are closures, and all else is names and numbers."""
    reducers = {
        Group: _reduce_group,
        Representation: _reduce_representation,
        IrreducibleRepresentation: _reduce_irrep,
        GSpace: _reduce_space,
        FieldType: _reduce_type,
    }
    for kind, reducer in reducers.items():
        kind.__reduce__ = reducer
    for kind in (Group, Representation, FieldType):
        kind.__deepcopy__ = _share  # pyright: ignore[reportAttributeAccessIssue]
