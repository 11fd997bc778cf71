"""Modules made on the meta device, or emptied: what the `state_dict` does not hold is made again."""

from collections.abc import Callable

import pytest
import torch
from escnn.nn import FieldType, GeometricTensor
from torch import nn

from escnn_attn import (
    BilinearFeedForward,
    FourierGELU,
    GroupSelfAttention,
    LiftingSelfAttention,
    SteerableFieldTransformer,
    SteerableLinear,
    SteerableTransformer,
    field_type,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from tests.helpers import mixed_type, relative, small_model

SO2, D4 = planar_gspace("SO2"), planar_gspace("D4")
MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: SteerableLinear(mixed_type("D4"), mixed_type("D4")),
    "feed-forward": lambda: BilinearFeedForward(fourier_type(SO2, 4, 2)),
    "nonlinearity": lambda: FourierGELU(fourier_type(SO2, 4, 2)),
    "block": lambda: steerable_block(fourier_type(SO2, 4, 2), num_heads=2),
    "group attention": lambda: GroupSelfAttention(fourier_type(D4, 2), num_heads=1),
    "lifting": lambda: LiftingSelfAttention(field_type(D4, scalars=2), fourier_type(D4, 2), num_heads=1),
    "network": lambda: small_model("SO2", SteerableTransformer),
    "finite network": lambda: small_model("C4", SteerableTransformer),
    "dense network": lambda: small_model("O2", SteerableFieldTransformer, out_fields={"vectors": 1}),
}


def output(module: nn.Module, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    in_type: FieldType = module.in_type
    draw = torch.Generator().manual_seed(0)
    out = module(in_type(torch.randn(2, in_type.size, 29, 29, generator=draw).to(dtype)))
    return out.tensor if isinstance(out, GeometricTensor) else out


def deferred(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("way", ["to_empty", "assign", "emptied", "double"])
def test_loading_weights_is_enough(name, way):
    source = MODULES[name]().eval()
    state = source.state_dict()
    target = MODULES[name]().to_empty(device="cpu") if way == "emptied" else deferred(MODULES[name])
    if way == "to_empty":
        target.to_empty(device="cpu")
    if way == "double":
        source, state = source.double(), {key: value.double() for key, value in state.items()}
    target.load_state_dict(state, assign=way in ("assign", "double"))
    target.eval()
    dtype = torch.float64 if way == "double" else torch.float32
    with torch.no_grad():
        assert relative(output(target, dtype), output(source, dtype)) < 1e-6


def test_default_dtype_of_float64():
    torch.set_default_dtype(torch.float64)
    try:
        wide = small_model("SO2")
        assert output(wide, torch.float64).dtype == torch.float64
        output(wide, torch.float64).sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    narrow = small_model("SO2").double()
    narrow.load_state_dict(wide.state_dict())
    assert relative(output(narrow, torch.float64), output(wide, torch.float64)) < 1e-12
