"""Attention in every dtype, under autocast and after inference mode."""

import copy

import pytest
import torch

from escnn_attn import Grid, KNearest
from escnn_attn.nn.position._rotation import sampled_wave
from escnn_attn.tokens import Tokens
from tests.helpers import attention_on, cloud, relative


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_are_kept(dtype):
    module = attention_on("O2").to(dtype)
    x = module.in_type(torch.randn(1, module.in_type.size, 5, 5, dtype=dtype))
    assert module(x).tensor.dtype == dtype


def test_bfloat16_autocast_is_close():
    module = attention_on("SO2").float()
    x = module.in_type(torch.randn(1, module.in_type.size, 5, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = module(x).tensor
    assert low.dtype == torch.bfloat16
    assert relative(low.float(), module(x).tensor) < 3e-2


@pytest.mark.parametrize("features", [torch.float32, torch.float64])
@pytest.mark.parametrize("coords", [torch.float32, torch.float64])
def test_features_and_coords_of_different_dtypes(features, coords):
    module = attention_on("SO2").to(features)
    x = cloud(module.in_type)
    out = module(module.in_type(x.tensor.to(features), x.coords.to(coords))).tensor
    assert out.dtype == features
    assert relative(out.double(), attention_on_twin(module)(x).tensor) < 1e-4


def attention_on_twin(module):
    return copy.deepcopy(module).double()


def test_bfloat16_modules_run():
    module = attention_on("SO2").bfloat16()
    x = module.in_type(torch.randn(1, module.in_type.size, 5, 5))
    low = module(module.in_type(x.tensor.bfloat16())).tensor
    assert low.dtype == torch.bfloat16
    assert relative(low.float(), module.float()(x).tensor) < 5e-2


@pytest.mark.parametrize("domain", ["grid", "points"])
def test_training_after_inference_mode(domain):
    sampled_wave.cache_clear()
    module = attention_on("O2")
    t = module.in_type
    x = cloud(t) if domain == "points" else t(torch.randn(1, t.size, 6, 5, dtype=torch.float64))
    with torch.inference_mode():
        before = module(x).tensor.clone()
    out = module(x).tensor
    out.sum().backward()
    torch.testing.assert_close(out.detach(), before)


def test_features_keep_their_digits_beside_coords_of_fewer():
    module = attention_on("O2").double()
    x, coords = torch.randn(9, module.in_type.size, dtype=torch.float64), torch.randn(9, 2)
    found, expected = (module(module.in_type(x, at)).tensor for at in (coords, coords.double()))
    assert relative(found, expected) < 1e-12


def test_positions_of_a_grid_belong_to_it():
    for grid in (Grid(3, 3), Grid(3, 3).disc(), Grid(3, 3).disc().whole()):
        grid.positions.mul_(10)
    assert Grid(3, 3).positions.max() == Grid(3, 3).disc().whole().positions.max() == 1


def test_a_graph_made_in_inference_mode_serves_training():
    module = attention_on("SO2", neighborhood=KNearest(3))
    x = module.in_type(torch.randn(9, module.in_type.size).double(), torch.randn(9, 2))
    tokens = Tokens.of(x, module.in_layout)
    with torch.inference_mode():
        module(tokens)
    sum(f.sum() for f in module(tokens).features).backward()
