"""Networks from plain data, such as the config.json of shipped weights."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from escnn.nn import EquivariantModule


def build(config: Any) -> Any:
    """The object that nested mappings and lists describe, as Hydra's `instantiate` would build it, from trusted names alone.

    Args:
        config: plain data; a mapping with `_target_` stands for a call of a public name of `escnn_attn`, or of an equivariant
            module of `escnn.nn`, with the other items as arguments (with `_partial_: true`, a `functools.partial` of it).

    Raises:
        ValueError: for any other target.

    Examples:
        >>> from escnn_attn.models import build
        >>> build({"_target_": "escnn_attn.Disc", "radius": 3.0})
        Disc(radius=3.0)
    """
    if isinstance(config, list):
        return [build(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    arguments = {name: build(value) for name, value in config.items() if name not in ("_target_", "_partial_")}
    if "_target_" not in config:
        return arguments
    target = _trusted(config["_target_"])
    return partial(target, **arguments) if config.get("_partial_") else target(**arguments)


def _trusted(name: str) -> Callable[..., Any]:
    module, _, attribute = str(name).rpartition(".")
    if module in ("escnn_attn", "escnn.nn"):
        found = vars(importlib.import_module(module)).get(attribute)
        public = module == "escnn_attn" and attribute in importlib.import_module(module).__all__
        if callable(found) and (public or (isinstance(found, type) and issubclass(found, EquivariantModule))):
            return found
    raise ValueError(f"expected a public name of escnn_attn or a module of escnn.nn as _target_, got {name!r}")
