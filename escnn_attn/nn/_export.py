"""Plain torch modules of images, made of equivariant ones, without escnn's objects: they can be pickled and need no types."""

import copy
from typing import Any

import torch
from escnn.nn import EquivariantModule, FieldType
from torch import Tensor, nn

from escnn_attn.tokens.domains import disc_window
from escnn_attn.tokens.tokens import disc_tokens, grid_tokens


class ExportedModule(nn.Module):
    """A copy of a module that has `forward_grid`, as a map of plain tensors."""

    def __init__(self, module: EquivariantModule) -> None:
        super().__init__()
        self.module: Any = without_types(copy.deepcopy(module))
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module.forward_grid(*inputs)


class ExportedTransformer(nn.Module):
    """Copies of the parts of a network for images, (b, c, h, w) to logits, or to (b, c', h', w') where it gives fields.

    Sides on which the stem's strides keep the center are the caller's to choose, as the network's own checks are not copied.

    Args:
        stem: from images to the field type of the blocks.
        blocks: on tokens.
        readout: of tokens to fields, or of invariants to logits.
        pool: from tokens to invariants; None for fields.
    """

    def __init__(self, stem: EquivariantModule, blocks: nn.Module, readout: nn.Module, pool: nn.Module | None) -> None:
        super().__init__()
        with torch.no_grad():
            self.stem: nn.Module = copy.deepcopy(stem).export()
        self.blocks, self.readout = without_types(copy.deepcopy(blocks)), without_types(copy.deepcopy(readout))
        self.pool = None if pool is None else without_types(copy.deepcopy(pool))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        if self.pool is None:
            x = self.stem(images)
            tokens = self.readout.forward_tokens(self.blocks.forward_tokens(grid_tokens(x, self.blocks.in_layout)))
            return self.readout.out_layout.merge(tokens.features).unflatten(2, x.shape[2:])
        x = self.stem(images * disc_window(*images.shape[2:]).to(images))
        tokens = self.blocks.forward_tokens(disc_tokens(grid_tokens(x, self.blocks.in_layout)))
        return self.readout(self.pool.pool_tokens(tokens))


def without_types(module: nn.Module) -> Any:
    """The module, with the field types in it taken away."""
    for part in module.modules():
        for name in [n for n, value in vars(part).items() if isinstance(value, FieldType)]:
            setattr(part, name, None)
    return module
