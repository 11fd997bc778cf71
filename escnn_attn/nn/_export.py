"""Copies of modules for plain tensors, without escnn's types: they can be pickled."""

import copy
from typing import Any

import torch
from escnn.nn import EquivariantModule, FieldType
from torch import Tensor, nn


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
        return self.module.forward_grid(*inputs)


def without_types(module: nn.Module) -> Any:
    """The module, with the field types in it set to None."""
    for part in module.modules():
        for name in [n for n, value in vars(part).items() if isinstance(value, FieldType)]:
            setattr(part, name, None)
    return module
