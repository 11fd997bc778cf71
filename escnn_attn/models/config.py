"""Networks from plain data, such as the config.json of shipped weights."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch
from escnn.nn import EquivariantModule

#: names (`"my_package.MyBlock"`) or objects (`MyBlock`) that configurations may call beside those of this library, escnn and torch
Trust = Iterable[str | Callable[..., Any]]


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
    kinds = {"escnn_attn": object, "escnn.nn": EquivariantModule, "torch.nn": torch.nn.Module}
    if module not in kinds:
        return None
    home = importlib.import_module(module)
    if module == "escnn_attn" and attribute not in vars(home)["__all__"]:
        return None
    found = vars(home).get(attribute)
    fits = module == "escnn_attn" or (isinstance(found, type) and issubclass(found, kinds[module]))
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
