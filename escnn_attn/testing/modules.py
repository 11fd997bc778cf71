"""Copies of modules, their types, and one call of them."""

import copy
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn.testing.actions import Fields


@runtime_checkable
class TakesFields(Protocol):
    """A module with an input of type `in_type`."""

    in_type: FieldType


@runtime_checkable
class TakesContext(Protocol):
    """A module with a second input of type `context_type`."""

    context_type: FieldType


def input_types(module: nn.Module) -> list[FieldType]:
    """The field types of the inputs of a module; a TypeError for modules without `in_type`."""
    if not isinstance(module, TakesFields) or not isinstance(module.in_type, FieldType):
        raise TypeError(f"expected a module with an in_type, got a {type(module).__name__}: its equivariance is not defined")
    return [module.in_type, module.context_type] if isinstance(module, TakesContext) else [module.in_type]


def copy_of(module: EquivariantModule, dtype: torch.dtype, training: bool = False) -> EquivariantModule:
    """A copy in another dtype and mode; the modes of the original and its parts are as before."""
    modes = [(part, part.training) for part in module.modules()]
    with torch.no_grad():  # escnn's modules can be copied in train mode, or with filters that were expanded so
        try:
            return copy.deepcopy(module.train()).to(dtype).train(training)
        finally:
            for part, mode in modes:
                if part.training != mode:
                    part.train(mode)


def call(module: EquivariantModule, inputs: Sequence[Fields], seed: int = 0, **options: bool) -> Fields:
    """The output of a module for inputs and options, with the random numbers of a seed.

    Raises:
        AssertionError: if the module changes an input in place, or its output is not of its `out_type`.
    """
    parts = [part for x in inputs for part in _tensors(x)]
    before = [part.clone() for part in parts]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = module(*inputs, **options)
    if not all(torch.equal(now, then) for now, then in zip(parts, before, strict=True)):
        raise AssertionError(f"{type(module).__name__} changes its input in place")
    out_type = getattr(module, "out_type", None)
    if isinstance(out, GeometricTensor) and isinstance(out_type, FieldType) and out.type != out_type:
        raise AssertionError(f"{type(module).__name__} has the out_type {out_type}, but gives {out.type}")
    return out


def _tensors(x: Fields) -> list[Tensor]:
    """Values, and positions where there are any."""
    return [x] if isinstance(x, Tensor) else [x.tensor] if x.coords is None else [x.tensor, x.coords]
