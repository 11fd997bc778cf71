"""Copies of modules for plain tensors, without escnn's types: torch exports and traces them."""

import copy
from typing import Any

import torch
from escnn.nn import EquivariantModule, FieldType
from torch import Tensor, nn

from escnn_attn.modes import plain_number


class ExportedModule(nn.Module):
    """A copy of a module in eval mode that maps plain tensors by the `forward_grid` of the module.

    Args:
        module: with `forward_grid`.
    """

    def __init__(self, module: EquivariantModule) -> None:
        super().__init__()
        with torch.no_grad():
            self.module: Any = without_types(copy.deepcopy(module))
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module.forward_grid(*(fixed_size(x) for x in inputs))


def fixed_size(x: Tensor) -> Tensor:
    """The tensor; where `torch.jit.trace` records it, also that only the height and width at hand are to pass: others are an error."""
    if not torch.jit.is_tracing() or x.dim() != 4:
        return x
    return x.expand(-1, -1, *(plain_number(side) for side in x.shape[2:]))


def without_types(module: nn.Module) -> Any:
    """The module, with the field types in it set to None."""
    for part in module.modules():
        for name in [n for n, value in vars(part).items() if isinstance(value, FieldType)]:
            setattr(part, name, None)
    return module
