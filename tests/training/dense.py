"""A small equivariant network from images to logits at each pixel, made of escnn's convolutions."""

import escnn.nn
import torch
from escnn.nn import GeometricTensor

from escnn_attn import field_type, fourier_type, planar_gspace


class Chain(torch.nn.Module):
    """Two convolutions of stride 1 on a finite group; takes the place of the network of conf/model/dense.yaml."""

    def __init__(self, group: str, in_type: int, out_fields: int, channels: int = 4, **_):
        super().__init__()
        space = planar_gspace(group)
        self.in_type, self.out_type = field_type(space, scalars=in_type), field_type(space, scalars=out_fields)
        hidden = fourier_type(space, channels)
        self.layers = escnn.nn.SequentialModule(
            escnn.nn.R2Conv(self.in_type, hidden, 5, padding=2),
            escnn.nn.ELU(hidden),
            escnn.nn.R2Conv(hidden, self.out_type, 5, padding=2),
        )

    def forward(self, images: torch.Tensor) -> GeometricTensor:
        return self.layers(GeometricTensor(images, self.in_type))
