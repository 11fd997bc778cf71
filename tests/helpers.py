"""Field types of every kind, and plain measurements, for all tests."""

from functools import partial

import numpy as np
import torch
from escnn.group import change_basis
from escnn.gspaces import GSpace
from escnn.nn import FieldType, GeometricTensor

from escnn_attn import (
    DistanceBias,
    Grid,
    NoPosition,
    QueryKeyRotaryEmbedding,
    RadialBias,
    RotaryEmbedding,
    SteerableSelfAttention,
    SteerableTransformer,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.models.network import SteerableNetwork

POSITIONS = {
    "rotary": RotaryEmbedding,
    "query-key rotary": QueryKeyRotaryEmbedding,
    "distance": DistanceBias,
    "radial": RadialBias,
    "none": NoPosition,
}
GROUPS = ["trivial", "C1", "C2", "C3", "C8", "D1", "D2", "D3", "D4", "SO2", "O2"]


def mixed_type(space: str | GSpace, copies: int = 1) -> FieldType:
    """Irreps, Fourier, and (finite groups) regular and quotient fields, and one in a basis that is not orthogonal."""
    gspace = planar_gspace(space) if isinstance(space, str) else space
    group, name = gspace.fibergroup, gspace.name
    if group.continuous:
        irreps = [group.irrep(*i) for i in group.bl_irreps(2)]
        fourier = list(fourier_type(gspace, 2, 2).representations)
    else:
        irreps = list(group.irreps())
        fourier = [group.regular_representation] * 2
        if group.name == "D4":
            fourier.append(group.quotient_representation((None, 2)))
    shear = np.eye(fourier[0].size) + 0.3 * np.triu(np.ones((fourier[0].size, fourier[0].size)), 1)
    skewed = change_basis(fourier[0], shear, name=f"skewed_{name}")
    fields = [irreps[-1], *fourier, gspace.trivial_repr, *irreps, skewed, fourier[0]]
    return FieldType(gspace, fields * copies)


def cloud(field_type: FieldType, points: int = 23, radius: float = 3.0, seed: int = 0) -> GeometricTensor:
    draw = torch.Generator().manual_seed(seed)
    coords = torch.rand(points, 2, generator=draw, dtype=torch.float64) * 2 - 1
    coords = coords * radius / coords.norm(dim=1).max()
    return GeometricTensor(torch.randn(points, field_type.size, generator=draw, dtype=torch.float64), field_type, coords)


def worst(errors: list) -> float:
    return max(error for _, error in errors)


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def assert_every_parameter_has_gradient(module: torch.nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.abs().sum() > 0, f"{name} has a zero gradient"


def attention_on(name: str, **options) -> SteerableSelfAttention:
    return randomize(SteerableSelfAttention(mixed_type(name), num_heads=3, head_channels=4, **options).double())


def randomize(module: torch.nn.Module) -> torch.nn.Module:
    """Moves every parameter off the value it starts with: zero biases and equal gains would hide errors."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter) * (parameter.abs().mean() + 0.5))
    return module


def small_model(group: str, kind: type[SteerableNetwork] = SteerableTransformer, **options) -> SteerableNetwork:
    small = {"channels": 4, "depth": 2, "block": partial(steerable_block, num_heads=2)}
    if group in ("SO2", "O2"):
        small["max_frequency"] = 2
    return kind(group, **{**small, **options})


def pixels_of(height: int, width: int) -> torch.Tensor:
    """Positions (height·width, 2) of the pixels of a grid, float64."""
    return Grid(height, width, dtype=torch.float64).positions[0]
