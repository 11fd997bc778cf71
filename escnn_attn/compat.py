"""Guards against known faults of escnn 1.0.11, applied once when `escnn_attn` is imported."""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

if int(np.__version__.split(".")[0]) >= 2:
    raise ImportError(
        f"escnn 1.0.11 needs numpy < 2, and numpy {np.__version__} is installed (under numpy 2 escnn imports "
        'without any of its submodules); run: pip install "numpy<2"'
    )

import escnn.group._numerical
import torch
from escnn.group import Group, IrreducibleRepresentation, Representation
from escnn.gspaces import GSpace, GSpace0D
from escnn.nn import FieldType
from torch import Tensor, nn

T = TypeVar("T")

# escnn issue 112: the randomized solver of scikit-learn, when it is importable, returns np.matrix and kernel bases
# of O(2) and D_N crash. Without it escnn takes scipy's, which works.
escnn.group._numerical.randomized_svd = None


def _share(value: T, memo: dict) -> T:
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


def _pickle_by_numbers() -> None:
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


_pickle_by_numbers()


def one_state_dict(module: nn.Module) -> None:
    """Gives a module with escnn convolutions the same `state_dict` in train and eval mode (escnn issue 1).

    escnn's convolutions and linear maps hold their expanded weights as persistent buffers in eval mode only. They are
    functions of the weights, so they are left out when saving, and ignored (and rebuilt, in eval mode) when loading.
    """
    module.register_state_dict_post_hook(_leave_out)
    module.register_load_state_dict_pre_hook(_supply)
    module.register_load_state_dict_post_hook(_rebuild)


def _expanded(owner: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor | None]]:
    for name, child in owner.named_modules(prefix=prefix.removesuffix(".")):
        if hasattr(child, "basisexpansion"):
            for buffer in ("filter", "matrix", "expanded_bias"):
                yield f"{name}.{buffer}".removeprefix("."), child._buffers.get(buffer)


def _leave_out(owner: nn.Module, state: dict, prefix: str, _metadata: dict) -> None:
    for key, _ in _expanded(owner, prefix):
        state.pop(key, None)


def _supply(owner: nn.Module, state: dict, prefix: str, *_: object) -> None:
    for key, value in _expanded(owner, prefix):
        state.pop(key, None)
        if value is not None:
            state[key] = value


def _rebuild(owner: nn.Module, _incompatible: object) -> None:
    with torch.no_grad():
        for child in owner.modules():
            if hasattr(child, "basisexpansion") and not child.training:
                child.train().eval()
