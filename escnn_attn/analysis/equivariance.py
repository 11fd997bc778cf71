"""Measured equivariance errors: attention at arbitrary positions, and networks on images rotated without interpolation."""

from collections.abc import Callable, Iterator
from functools import partial

import escnn.nn
import numpy as np
import torch
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn import (
    InvariantPooling,
    RotaryEmbedding,
    SteerableBackbone,
    SteerableSelfAttention,
    convolution_stem,
    fourier_type,
    planar_gspace,
)
from escnn_attn.functional import invariants
from escnn_attn.models import crop
from escnn_attn.testing import random_elements, relative_error, transform
from escnn_attn.tokens import Lattice, lattice_positions


def smooth_image(degrees: float, size: int = 29, bumps: int = 12, seed: int = 0, width: float = 2.0) -> Tensor:
    """Samples a sum of Gaussians, rotated exactly about the center by its formula, as an image (1, 1, size, size).

    Args:
        degrees: rotation, counter-clockwise.
        size: side in pixels.
        bumps: number of Gaussians, within a third of the side from the center.
        seed: of their positions and heights.
        width: their standard deviation, in pixels.
    """
    rng = np.random.default_rng(seed)
    radius, angle = size / 3 * np.sqrt(rng.uniform(size=bumps)), rng.uniform(0, 2 * np.pi, bumps) + np.deg2rad(degrees)
    centers = torch.tensor(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    heights = torch.tensor(rng.uniform(-1, 1, bumps))
    positions = torch.from_numpy(lattice_positions(Lattice(size, size)))
    distances = (positions[:, None] - centers).square().sum(-1)
    return (torch.exp(-distances / (2 * width**2)) @ heights).view(1, 1, size, size).float()


@torch.no_grad()
def error_by_angle(network: Callable[[Tensor], Tensor], angles: list[float], size: int = 29, width: float = 2.0) -> list[float]:
    """Measures the relative change of the output of a network in eval mode when `smooth_image` rotates, averaged over 8 images.

    Args:
        network: of images (1, 1, size, size).
        angles: in degrees.
        size: side of the images in pixels.
        width: standard deviation of the Gaussians of `smooth_image`, in pixels.
    """
    errors = np.zeros(len(angles))
    for seed in range(8):
        reference = network(smooth_image(0.0, size, seed=seed, width=width))
        outputs = [network(smooth_image(angle, size, seed=seed, width=width)) for angle in angles]
        errors += [relative_error(out, reference) / 8 for out in outputs]
    return errors.tolist()


@torch.no_grad()
def feature_errors(
    backbone: SteerableBackbone, size: int, angles: list[float], width: float, images: int = 4
) -> list[list[float]]:
    """Measures the relative change of the invariants of each stage, averaged over the tokens, when smooth images rotate.

    Args:
        backbone: of images with one channel, in eval mode.
        size: side of the images in pixels.
        angles: in degrees.
        width: standard deviation of the Gaussians of `smooth_image`, in pixels.
        images: number of images to average over.

    Returns:
        for each angle the errors of all stages.
    """

    def invariants_of(angle: float, seed: int) -> list[Tensor]:
        tokens = backbone.intermediates(smooth_image(angle, size, seed=seed, width=width))
        layouts = backbone.blocks.layouts
        values = [invariants(t.features, layout.irreps.trivial) for t, layout in zip(tokens, layouts, strict=True)]
        return [value.mean(dim=1) for value in values]

    errors = np.zeros((len(angles), len(backbone.blocks.types)))
    for seed in range(images):
        reference = invariants_of(0.0, seed)
        for row, angle in zip(errors, angles, strict=True):
            row += [relative_error(a, b) / images for a, b in zip(invariants_of(angle, seed), reference, strict=True)]
    return errors.tolist()


class ConvolutionalNetwork(nn.Module):
    """Network of escnn's convolutions: the stem, convolutions with Fourier ELUs, and invariant pooling.

    Args:
        group: `"SO2"` or `"O2"`.
        channels: number of functions on the group.
        max_frequency: band limit of the functions.
        depth: number of 3×3 convolutions after the stem.
    """

    def __init__(self, group: str, channels: int, max_frequency: int, depth: int) -> None:
        super().__init__()
        gspace = planar_gspace(group)
        self.in_type = FieldType(gspace, [gspace.trivial_repr])
        t = fourier_type(gspace, channels, max_frequency)
        irreps = gspace.fibergroup.bl_irreps(max_frequency)  # pyright: ignore[reportAttributeAccessIssue]
        layers: list[EquivariantModule] = [convolution_stem(self.in_type, t)]
        for _ in range(depth):
            layers.append(escnn.nn.FourierELU(gspace, channels, irreps, type="regular", N=16))
            layers.append(escnn.nn.R2Conv(t, t, 3, padding=1))
        self.layers = escnn.nn.SequentialModule(*layers)
        self.pool = InvariantPooling(t)

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.layers(GeometricTensor(crop(images), self.in_type))).tensor


@torch.no_grad()
def attention_errors(tolerances: list[float], limits: list[int], distances: list[float]) -> Iterator[tuple]:
    """Measures errors of attention under random rotations (and reflections) at 40 random positions, in float64.

    Yields:
        group name, tolerance, band limit, largest distance, and largest relative error over 8 group elements.
    """
    for name in ("SO2", "O2"):
        for limit in limits:
            t = fourier_type(planar_gspace(name), 8, limit)
            for tolerance in tolerances:
                torch.manual_seed(0)
                module = SteerableSelfAttention(t, num_heads=2, position=partial(RotaryEmbedding, tolerance=tolerance)).double()
                for distance in distances:
                    yield name, tolerance, limit, distance, _largest_error(module, distance)


def _largest_error(module: SteerableSelfAttention, distance: float) -> float:
    rng = np.random.default_rng(0)
    coords = rng.uniform(-1, 1, (40, 2))
    coords *= distance / 2 / np.linalg.norm(coords, axis=1).max()
    # features of standard deviation 3: attention is as sharp as in a trained network
    x = module.in_type(torch.tensor(3 * rng.standard_normal((40, module.in_type.size))), torch.tensor(coords))
    y = module(x)
    elements = random_elements(module.in_type.fibergroup, 8, rng)
    return max(relative_error(module(transform(x, g)), transform(y, g)) for g in elements)
