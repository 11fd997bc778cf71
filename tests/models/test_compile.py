"""Compiled stacks of blocks."""

import copy
from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from escnn_attn import (
    Disc,
    KNearest,
    RadialBias,
    SteerableSelfAttention,
    SteerableStack,
    SteerableTransformer,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from tests.helpers import relative, small_model

SMALL = fourier_type(planar_gspace("SO2"), 2, 1)


def stack(**options) -> SteerableStack:
    return SteerableStack([steerable_block(SMALL, **{"num_heads": 2, **options})])


def images(side: int, channels: int = SMALL.size, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(side))


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


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_one_graph_serves_several_numbers_of_tokens_and_samples(backend):
    """The graph is captured as for the real compiler, which `slow` tests run, and by `aot_eager` differentiated, but not translated.

    The first batch is as large as the number of components and of copies, which no later batch is.
    """
    module = stack(num_heads=1)
    compiled = copy.deepcopy(module)
    counter = CompileCounterWithBackend(backend)
    compiled.compile(backend=counter, fullgraph=True)
    with_gradients(compiled, images(6))
    once = counter.frame_count
    for side, batch in ((5, 3), (7, 2), (4, 5)):
        found, expected = (with_gradients(each, images(side, batch=batch)) for each in (compiled, module))
        assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))
    assert counter.frame_count == once > 0
    assert copy.deepcopy(compiled)._compiled is None


@pytest.mark.slow
@pytest.mark.parametrize("neighborhood", [None, KNearest(3)])
def test_one_graph_serves_several_clouds(neighborhood):
    """Of any number, size and extent."""
    module = stack(num_heads=1, neighborhood=neighborhood)
    compiled = copy.deepcopy(module)
    counter = CompileCounterWithBackend("eager")
    compiled.compile(backend=counter, fullgraph=True)
    for clouds, points, extent in ((2, 5, 1.0), (3, 4, 30.0), (4, 7, 4.0)):
        x = SMALL(torch.randn(clouds * points, SMALL.size), extent * torch.randn(clouds * points, 2))
        batch = torch.arange(clouds).repeat_interleave(points)
        assert relative(compiled(x, batch=batch).tensor, module(x, batch=batch).tensor) < 1e-5
        assert counter.frame_count == 1


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
@pytest.mark.parametrize("neighborhood", [Disc(1.5), Disc(3.0), KNearest(5)], ids=str)
def test_one_graph_serves_neighborhoods_on_several_grids(neighborhood):
    module = stack(neighborhood=neighborhood)
    compiled = copy.deepcopy(module)
    counter = CompileCounterWithBackend("eager")
    compiled.compile(backend=counter, fullgraph=True)
    for side, batch in ((8, 2), (9, 3), (7, 5)):
        found, expected = (with_gradients(each, images(side, batch=batch)) for each in (compiled, module))
        assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))
        assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("neighborhood", [None, pytest.param(Disc(1.5), marks=pytest.mark.slow)])
def test_a_compiled_block_is_one_graph_for_each_size(neighborhood):
    """As people write it: `torch.compile(block, fullgraph=True)`."""
    block = steerable_block(SMALL, num_heads=1, neighborhood=neighborhood)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(block, backend=counter, fullgraph=True)
    for number, side in enumerate((5, 7)):
        x = block.in_type(images(side))
        assert relative(compiled(x).tensor, block(x).tensor) < 1e-5
        assert relative(compiled(block.in_type(x.tensor[:1])).tensor, block(x).tensor[:1]) < 1e-5
        assert counter.frame_count >= number + 1
    assert counter.frame_count <= 4  # a size, and a batch of one, which compilers treat apart


def test_compilers_take_each_constant_for_itself():
    """Positions and numbers of samples are constants of a graph, which compilers, but not the backend "eager", tell apart by name."""
    attention = SteerableSelfAttention(fourier_type(SMALL.gspace, 8, 2), num_heads=2)
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True)
    for side in (5, 6):
        x = attention.in_type(images(side, attention.in_type.size))
        assert relative(compiled(x).tensor, attention(x).tensor) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about itself
def test_a_translated_network_gives_the_eager_results():
    model = SteerableTransformer("SO2", channels=8, max_frequency=2, depth=2, block=partial(steerable_block, num_heads=2))
    compiled = torch.compile(model, fullgraph=True)
    for x in (images(17, 1), images(13, 1)):
        found, expected = compiled(x), model(x)
        assert relative(found, expected) < 1e-5
    grads = [torch.autograd.grad(out.square().sum(), list(model.parameters())) for out in (found, expected)]
    assert all(relative(a, b) < 1e-4 for a, b in zip(*grads, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"neighborhood": Disc(2.0)}, {"position": RadialBias}], ids=str)
def test_a_compiled_network_is_one_graph(options):
    model = small_model("SO2", depth=1, channels=2, max_frequency=1, block=partial(steerable_block, num_heads=1, **options))
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for number, side in enumerate((29, 37)):
        assert relative(compiled(images(side, 1)), model(images(side, 1))) < 1e-5
        assert counter.frame_count == number + 1
