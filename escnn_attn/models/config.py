"""Networks from plain data, such as the config.json of shipped weights."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from numbers import Integral, Real
from pkgutil import resolve_name
from types import FunctionType
from typing import Any

import torch
from escnn.nn import EquivariantModule

#: names (`"my_package.MyBlock"`) or objects (`MyBlock`) that configurations may call beside those of this library, escnn and torch
Trust = Iterable[str | Callable[..., Any]]

#: modules of which configurations may call what is public, and what of it
PUBLIC = {"escnn_attn": object, "escnn.nn": EquivariantModule, "torch.nn": torch.nn.Module}


def build(config: Any, trust: Trust = ()) -> Any:
    """The object that nested mappings and lists describe, as Hydra's `instantiate` would build it, from trusted names alone.

    All names are checked before the first is imported or called.

    Args:
        config: plain data; a mapping with `_target_` stands for a call of a public name of `escnn_attn`, of an equivariant
            module of `escnn.nn`, or of a module of `torch.nn`, with the other items as arguments (with `_partial_: true`, a
            `functools.partial` of it).
        trust: other names that may be imported and called, such as `["my_package.MyBlock"]`, or the objects themselves.

    Raises:
        ValueError: for any other target.

    Examples:
        >>> from escnn_attn.models import build
        >>> build({"_target_": "escnn_attn.Disc", "radius": 3.0})
        Disc(radius=3.0)
    """
    known = by_name(trust)
    for name in _targets(config):
        if name not in known and _public(name) is None:
            raise ValueError(
                f"expected a public name of escnn_attn, a module of escnn.nn or of torch.nn, or one of trust={[*known]} as "
                f"_target_, got {name!r}: whatever it names would be called, so add it to trust only if you know its code"
            )
    return _build(config, known)


def by_name(trust: Trust) -> dict[str, str | Callable[..., Any]]:
    """What is trusted, by its full name; a TypeError for a string in the place of a list."""
    if isinstance(trust, str):
        raise TypeError(f"expected a list of names as trust, got the string {trust!r}")
    return {entry if isinstance(entry, str) else f"{entry.__module__}.{entry.__qualname__}": entry for entry in trust}


def imported(entry: str | Callable[..., Any]) -> Any:
    """The object that an entry of `trust` is, or names."""
    return resolve_name(entry) if isinstance(entry, str) else entry


def _targets(config: Any) -> Iterator[Any]:
    """All names that a configuration would call."""
    inner = config.values() if isinstance(config, Mapping) else config if isinstance(config, list | tuple) else ()
    for item in inner:
        yield from _targets(item)
    if isinstance(config, Mapping) and "_target_" in config:
        yield config["_target_"]


def _public(name: object) -> Callable[..., Any] | None:
    """The public class or function of that name; None for any other name."""
    module, _, attribute = str(name).rpartition(".")
    if module not in PUBLIC:
        return None
    home = importlib.import_module(module)
    if module == "escnn_attn" and attribute not in vars(home)["__all__"]:
        return None
    found = vars(home).get(attribute)
    fits = module == "escnn_attn" or (isinstance(found, type) and issubclass(found, PUBLIC[module]))
    return found if callable(found) and fits else None


def _build(config: Any, known: Mapping[str, str | Callable[..., Any]]) -> Any:
    if isinstance(config, list | tuple):
        return [_build(item, known) for item in config]
    if not isinstance(config, Mapping):
        return config
    arguments = {name: _build(value, known) for name, value in config.items() if name not in ("_target_", "_partial_")}
    if "_target_" not in config:
        return arguments
    name = config["_target_"]
    target = imported(known[name]) if name in known else _public(name)
    assert target is not None
    return partial(target, **arguments) if config.get("_partial_") else target(**arguments)


def described(value: Any, name: str = "value") -> Any:
    """Plain data that `build` makes the value of again: the inverse of `build`.

    Args:
        value: plain data, a class or function, a `functools.partial` of one with keywords, an object of a dataclass such as `Disc`, and
            mappings and sequences of these.
        name: of the value, for errors.

    Raises:
        TypeError: for anything else, such as a gspace or a lambda.

    Examples:
        >>> from functools import partial
        >>> from escnn_attn import Disc, steerable_block
        >>> described(partial(steerable_block, num_heads=2, neighborhood=Disc(3.0)))["neighborhood"]
        {'_target_': 'escnn_attn.Disc', 'radius': 3.0}
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Real):  # of numpy
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Mapping):
        return {str(key): described(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [described(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, partial) and not value.args:
        return {**described(value.func, name), **described(value.keywords, name)}
    if is_dataclass(value) and not isinstance(value, type):
        values = {
            field.name: described(getattr(value, field.name), f"{name}.{field.name}") for field in fields(value) if field.init
        }
        return {"_target_": name_of(type(value), name), **values}
    if isinstance(value, type | FunctionType):
        return {"_target_": name_of(value, name), "_partial_": True}
    raise TypeError(
        f"expected {name} to be plain data, such as the name of a group, a class, or a functools.partial with keywords, got {value!r}"
    )


def name_of(value: Any, name: str = "the network") -> str:
    """The name by which `build` finds a class or function: a public one, where it has one."""
    for home in PUBLIC:
        public = f"{home}.{value.__name__}"
        if _public(public) is value:
            return public
    if "<" in value.__qualname__:
        raise TypeError(f"expected {name} to be a class or function with a name in its module, got {value!r}")
    return f"{value.__module__}.{value.__qualname__}"
