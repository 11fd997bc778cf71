"""Networks on plain tensors, without escnn's types: torch exports and traces them."""

import copy

import torch
from escnn.nn import EquivariantModule
from torch import Tensor, nn

from escnn_attn.models.block import SteerableStack
from escnn_attn.models.pyramid import SteerablePyramid
from escnn_attn.nn._export import fixed_size, without_types
from escnn_attn.nn.linear import SteerableLinear
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.pooling import InvariantPooling
from escnn_attn.tokens import PaddedClouds, Tokens, grid_of


def crop(images: Tensor) -> Tensor:
    """Images (b, c, height, width) within the largest centered disc, zero beyond."""
    return images * grid_of(images).window(images.dtype)


class ExportedNetwork(nn.Module):
    """Copies of the parts of a network of images, on plain tensors.

    Args:
        stem: from images to the field type of the blocks.
        blocks: on tokens.
        readout: from tokens to a plain tensor.
        disc: whether only the largest centered disc counts.
        periodic: whether images repeat.
        spacing: between tokens.
    """

    def __init__(
        self,
        stem: EquivariantModule,
        blocks: SteerableStack | SteerablePyramid,
        readout: nn.Module,
        disc: bool,
        periodic: bool = False,
        spacing: float = 1.0,
    ) -> None:
        super().__init__()
        with torch.no_grad():
            self.stem: nn.Module = copy.deepcopy(stem).export()
        self.disc, self.periodic, self.spacing = disc, periodic, spacing
        self.blocks = without_types(copy.deepcopy(blocks))
        self.readout = without_types(copy.deepcopy(readout))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        images = fixed_size(images)
        images = crop(images) if self.disc else images
        x = self.stem(images)
        grid = grid_of(x, spacing=self.spacing, periodic=self.periodic)
        tokens = Tokens.on(grid.disc() if self.disc else grid, x, self.blocks.in_layout)
        return self.read(images, tokens)

    def read(self, images: Tensor, tokens: Tokens) -> Tensor:
        """The output, of the images and the tokens of the stem."""
        return self.readout(self.blocks(tokens))


class ExportedDenseNetwork(ExportedNetwork):
    """The same of a network of fields at every pixel; its `blocks` are those of a pyramid, and its read-out is their decoder."""

    def read(self, images: Tensor, tokens: Tokens) -> Tensor:
        return self.readout(images, self.blocks.plain(tokens))


class ExportedPointNetwork(nn.Module):
    """Copies of the parts of a network of points, on plain tensors of padded clouds.

    Args:
        stem: a layer on tokens.
        blocks: on tokens.
        readout: from tokens to a plain tensor.

    Shape:
        points (b, points, c), coords (b, points, 2) and mask (b, points), True where a point counts, to what `readout` makes.
    """

    def __init__(self, stem: TokenModule, blocks: SteerableStack, readout: nn.Module) -> None:
        super().__init__()
        parts = (without_types(copy.deepcopy(part)) for part in (stem, blocks, readout))
        self.stem, self.blocks, self.readout = parts
        self.eval()

    def forward(self, x: Tensor, coords: Tensor, mask: Tensor) -> Tensor:
        clouds = PaddedClouds(coords.to(torch.promote_types(coords.dtype, x.dtype)), mask)
        return self.readout(self.blocks(self.stem(Tokens.on(clouds, x, self.stem.in_layout))))


class PlainPooling(nn.Module):
    """Invariants (b, c) of tokens."""

    pool: InvariantPooling

    def __init__(self, pool: InvariantPooling) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, tokens: Tokens) -> Tensor:
        return self.pool(tokens)


class PlainFields(nn.Module):
    """Fields (b, c, height, width) of the tokens of a grid, or (b, points, c) of padded clouds; zero for padding."""

    linear: SteerableLinear

    def __init__(self, linear: SteerableLinear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, tokens: Tokens) -> Tensor:
        return self.linear(tokens).plain(self.linear.out_layout)
