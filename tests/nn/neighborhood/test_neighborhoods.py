"""Neighborhoods: discs, nearest tokens and graphs, on grids and clouds."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.measure import in_fresh_process
from escnn_attn import (
    Disc,
    KNearest,
    Neighborhood,
    RotaryEmbedding,
    SteerableSelfAttention,
    SteerableStack,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.functional import edges as edge_functions
from escnn_attn.nn.neighborhood import _patterns
from escnn_attn.testing import random_elements, transform
from escnn_attn.tokens import Clouds
from tests.helpers import POSITIONS, assert_every_parameter_has_gradient, attention_on, cloud, pixels_of, relative

EXACT = partial(RotaryEmbedding, tolerance=1e-12)
NEAR = {"disc": Disc(2.0), "nearest": KNearest(5)}


def grid_and_cloud(module, height=7, width=10):
    """A random field on a grid, and the same as a cloud."""
    x = torch.randn(1, module.in_type.size, height, width, dtype=torch.float64)
    points = module.in_type(x.flatten(2)[0].T.contiguous(), pixels_of(height, width))
    return module.in_type(x), points


def one_neighborhood_at_a_time(module, x):
    """Global attention on each token's neighborhood alone, by sorting all distances."""
    neighborhood, module.neighborhood = module.neighborhood, None
    gaps = torch.cdist(x.coords, x.coords, compute_mode="donot_use_mm_for_euclid_dist")
    reach = gaps.sort(dim=1).values[:, neighborhood.k - 1] if isinstance(neighborhood, KNearest) else neighborhood.radius
    near = gaps <= (torch.as_tensor(reach) + 1e-9).reshape(-1, 1)
    rows = []
    for i, members in enumerate(near):
        out = module(module.in_type(x.tensor[members], x.coords[members])).tensor
        rows.append(out[int(members[:i].sum())])
    module.neighborhood = neighborhood
    return torch.stack(rows)


@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("position", [*POSITIONS, "exact"])
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_attention_to_a_neighborhood_is_global_attention_within_it(near, position, domain):
    module = attention_on("SO2" if position == "exact" else "C3", position={**POSITIONS, "exact": EXACT}[position])
    module.neighborhood = NEAR[near]
    grid, points = grid_and_cloud(module)
    if domain == "points":
        points = cloud(module.in_type, points=40, radius=5.0)
    with torch.no_grad():
        out = module(grid).tensor[0].flatten(1).T if domain == "grid" else module(points).tensor
        assert relative(out, one_neighborhood_at_a_time(module, points)) < 1e-10


@pytest.mark.parametrize("near", [Disc(20.0), Disc(1e9), KNearest(70), KNearest(1000)])
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_a_neighborhood_that_covers_everything_is_global_attention(near, domain):
    module = attention_on("O2")
    x = grid_and_cloud(module)[domain == "points"]
    with torch.no_grad():
        everywhere = module(x).tensor
        module.neighborhood = near
        assert relative(module(x).tensor, everywhere) < 1e-12


@pytest.mark.parametrize("near", NEAR)
def test_continuous_elements_on_a_lattice_of_points(near, rng):
    """Points at exactly the radius, or equally near, stay neighbors when rounding moves them."""
    module = attention_on("O2", position=EXACT, neighborhood=NEAR[near])
    _, points = grid_and_cloud(module)
    with torch.no_grad():
        out = module(points)
        for g in random_elements(module.in_type.fibergroup, 4, rng):
            assert relative(module(transform(points, g)).tensor, transform(out, g).tensor) < 1e-9


@pytest.mark.parametrize("near", NEAR)
def test_clouds_of_a_batch_and_padding(near):
    """Clouds do not see each other, one of them small; padding with NaN features and positions changes nothing."""
    module = attention_on("C3", neighborhood=NEAR[near])
    x = cloud(module.in_type, points=24, radius=2.0)
    batch, mask = torch.tensor([0, 1, 3] * 7 + [1, 4, 4]), torch.ones(24, dtype=torch.bool)
    mask[[2, 3, 10, 22, 23]] = False
    features, coords = x.tensor.masked_fill(~mask[:, None], torch.nan), x.coords.masked_fill(~mask[:, None], torch.nan)
    features.requires_grad_()
    out = module(module.in_type(features, coords), batch=batch, mask=mask).tensor
    out.sum().backward()
    assert features.grad.isfinite().all()
    assert out[~mask].abs().max() == 0
    for b in (0, 1, 3):
        member = (batch == b) & mask
        alone = module(module.in_type(x.tensor[member], x.coords[member])).tensor
        assert relative(out[member], alone) < 1e-12


@pytest.mark.parametrize("near", NEAR)
def test_padding_of_a_grid(near):
    module = attention_on("D4", neighborhood=NEAR[near])
    t = module.in_type
    x = torch.randn(2, t.size, 9, 6, dtype=torch.float64)
    mask = torch.ones(2, 9, 6, dtype=torch.bool)
    mask[0, :, 4:] = False
    mask[0, 2:5, 2:] = False
    mask[1] = False
    poisoned = x.masked_fill(~mask[:, None], torch.nan).requires_grad_()
    out = module(t(poisoned), mask=mask).tensor
    out.sum().backward()
    assert poisoned.grad.isfinite().all()
    assert out.masked_select(~mask[:, None].expand_as(out)).abs().max() == 0
    kept = mask[0].flatten()
    points = t(x[0].flatten(1).T[kept], pixels_of(9, 6)[kept])
    assert relative(out[0].flatten(1).T[kept], module(points).tensor) < 1e-12


def test_graphs_are_built_once_in_a_stack(monkeypatch):
    from escnn_attn import SteerableStack

    t = fourier_type(planar_gspace("C4"), 2)
    stack = SteerableStack([SteerableSelfAttention(t, num_heads=1, neighborhood=Disc(2.0)) for _ in range(3)])
    built = []
    monkeypatch.setattr(Disc, "edges", lambda self, *tokens: built.append(1) or Neighborhood.edges(self, *tokens))
    stack(t(torch.randn(20, t.size), torch.randn(20, 2)))
    assert len(built) == 1


@pytest.mark.parametrize("domain", ["grid", "points"])
def test_memory_of_local_attention_is_linear(domain):
    """Nothing of tokens² is kept for the gradient: four times the tokens, at most four times the memory."""
    module = SteerableSelfAttention(fourier_type(planar_gspace("SO2"), 2, 1), num_heads=1, neighborhood=Disc(2.0))
    small, large = (saved(module.double(), grid_and_cloud(module, side, side)[domain == "points"]) for side in (24, 48))
    assert large < 4.2 * small


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["grid", "periodic", "points"])
def test_peak_memory_is_linear(domain):
    """Forward and backward, each size in a process of its own: four times the tokens, about four times the memory."""
    sizes = (16384, 65536) if domain == "points" else (64, 128)
    small, large = (in_fresh_process("benchmarks.local:local_attention", domain, size)["bytes"] for size in sizes)
    assert large < 5 * small


def saved(module, x) -> int:
    """How many numbers are kept for the gradient."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        module(x)
    return sum(sizes)


@pytest.mark.parametrize("near", [None, *NEAR.values()])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_every_parameter_is_trained_and_dtypes_are_kept(near, position, domain):
    module = attention_on("SO2", neighborhood=near, position=POSITIONS[position])
    x = grid_and_cloud(module, 5, 6)[domain == "points"]
    exact = module(x).tensor
    exact.pow(2).sum().backward()
    assert_every_parameter_has_gradient(module)
    for dtype, error in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        low = module.to(dtype)(module.in_type(x.tensor.to(dtype), x.coords)).tensor
        assert low.dtype == dtype
        assert relative(low.double(), exact) < error


@pytest.mark.parametrize("near", [Disc(1.0), Disc(2.0), KNearest(5)])
def test_large_lattices_in_single_precision(near):
    """Rounding grows with the extent of a cloud; neighbors stay neighbors."""
    points = pixels_of(150, 150)
    counts = []
    for angle in (0.0, 0.7345, 2.1):
        c, s = np.cos(angle), np.sin(angle)
        turned = (points @ torch.tensor([[c, s], [-s, c]])).float()
        clouds = Clouds(turned)
        counts.append(near.edges(clouds, clouds).shape[1])
    assert counts[0] == counts[1] == counts[2]


def test_many_points_in_two_places():
    """Ties beyond what the search asks for first: all of them are neighbors, each once."""
    module = attention_on("C3", neighborhood=KNearest(3))
    coords = torch.cat([torch.zeros(20, 2), torch.ones(15, 2), torch.randn(10, 2)]).double()
    x = module.in_type(torch.randn(45, module.in_type.size).double(), coords)
    counts = (module.attention_weights(x)[0, 0] > 0).sum(-1)
    assert (counts[:20] == 20).all()
    assert (counts[20:35] == 15).all()
    with torch.no_grad():
        assert relative(module(x).tensor, one_neighborhood_at_a_time(module, x)) < 1e-10


class Waits(TorchDispatchMode):
    """Counts the operations after which the host waits for the device, or copies to it."""

    waiting = ("_local_scalar_dense", "nonzero", "equal", "unique", "masked_select", "is_nonzero", "bincount")

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.waiting):
            self.count[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("neighborhood", [KNearest(8), None])
def test_clouds_wait_for_the_device_once_a_call(neighborhood):
    """For their size and their graph, but not once a layer, nor for each chunk of edges."""
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    counts = []
    for depth in (1, 4):
        stack = SteerableStack([steerable_block(t, num_heads=1, neighborhood=neighborhood) for _ in range(depth)])
        x, batch = t(torch.randn(3000, t.size), torch.randn(3000, 2)), torch.arange(3000) // 1000
        with Waits() as forward:
            loss = stack(x, batch=batch).tensor.sum()
        with Waits() as backward:
            loss.backward()
        counts.append(forward.count.total())
        assert backward.count.total() == 0
    assert counts[0] == counts[1] < 20


def test_the_chunks_of_a_graph_are_found_once(monkeypatch):
    """For all layers, forward and backward: finding them copies the edges to the host."""
    found, original = [], edge_functions.chunks
    for place in (edge_functions, _patterns):
        monkeypatch.setattr(place, "chunks", lambda *arguments: found.append(1) or original(*arguments))
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    stack = SteerableStack([steerable_block(t, num_heads=1, neighborhood=KNearest(8)) for _ in range(4)])
    stack(t(torch.randn(3000, t.size), torch.randn(3000, 2))).tensor.sum().backward()
    assert len(found) == 1
