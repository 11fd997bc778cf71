"""Compiled stacks of blocks."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from escnn_attn import Disc, SteerableStack, fourier_type, planar_gspace, steerable_block
from tests.helpers import relative


def stack(depth: int = 1, **options) -> SteerableStack:
    t = fourier_type(planar_gspace("SO2"), 4, 2)
    return SteerableStack([steerable_block(t, num_heads=2, **options) for _ in range(depth)])


def images(side: int, channels: int = 20) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(side))


def with_gradients(module: SteerableStack, x: torch.Tensor) -> list[torch.Tensor]:
    module.zero_grad()
    out = module(module.in_type(x)).tensor
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in module.parameters())]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_one_graph_serves_several_numbers_of_tokens():
    """The graph is captured and differentiated as for the real compiler, which `slow` tests run, but not translated."""
    module = stack()
    compiled = copy.deepcopy(module)
    counter = CompileCounterWithBackend("aot_eager")
    compiled.compile(backend=counter, fullgraph=True)
    with_gradients(compiled, images(6))
    once = counter.frame_count
    for side in (5, 7, 4):
        found, expected = with_gradients(compiled, images(side)), with_gradients(module, images(side))
        assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))
    assert counter.frame_count == once > 0
    assert copy.deepcopy(compiled)._compiled is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about itself
@pytest.mark.parametrize("size", ["small", "wide"])
def test_compiled_results_are_the_eager_ones(size):
    wide = fourier_type(planar_gspace("SO2"), 16, 3)
    module = stack() if size == "small" else SteerableStack([steerable_block(wide, num_heads=8)])
    compiled = copy.deepcopy(module)
    compiled.compile(fullgraph=True)
    for side in (5, 7):
        x = images(side, module.in_type.size)
        found, expected = with_gradients(compiled, x), with_gradients(module, x)
        assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))


@pytest.mark.slow
def test_neighborhoods_break_the_graph_and_nothing_else():
    module = stack(neighborhood=Disc(1.5))
    compiled = copy.deepcopy(module)
    compiled.compile(backend="aot_eager")
    assert relative(with_gradients(compiled, images(5))[0], with_gradients(module, images(5))[0]) < 1e-5
