"""Neighbourhoods: discs, nearest tokens and graphs, on grids and clouds."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from escnn_attn import Disc, KNearest, Neighborhood, RotaryEmbedding, SteerableSelfAttention, edges, fourier_type, planar_gspace
from escnn_attn.domains import grid_positions
from escnn_attn.edges import attend_edges, chunks, edge_formula
from escnn_attn.testing import random_elements, transform

from .helpers import POSITIONS, assert_every_parameter_has_gradient, attention_on, cloud, relative

EXACT = partial(RotaryEmbedding, tolerance=1e-12)
NEAR = {"disc": Disc(2.0), "nearest": KNearest(5)}


def grid_and_cloud(module, height=7, width=10):
    """A random field on a grid, and the same as a cloud."""
    x = torch.randn(1, module.in_type.size, height, width, dtype=torch.float64)
    points = module.in_type(x.flatten(2)[0].T.contiguous(), grid_positions(height, width)[0])
    return module.in_type(x), points


def one_neighbourhood_at_a_time(module, x):
    """Global attention on each token's neighbourhood alone, by sorting all distances."""
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
def test_attention_to_a_neighbourhood_is_global_attention_within_it(near, position, domain):
    module = attention_on("SO2" if position == "exact" else "C3", position={**POSITIONS, "exact": EXACT}[position])
    randomize(module)
    module.neighborhood = NEAR[near]
    grid, points = grid_and_cloud(module)
    if domain == "points":
        points = cloud(module.in_type, points=40, radius=5.0)
    with torch.no_grad():
        out = module(grid).tensor[0].flatten(1).T if domain == "grid" else module(points).tensor
        assert relative(out, one_neighbourhood_at_a_time(module, points)) < 1e-10


def randomize(module):
    """Biases that start at zero would make positions invisible."""
    for parameter in module.position.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("near", [Disc(20.0), Disc(1e9), KNearest(70), KNearest(1000)])
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_a_neighbourhood_that_covers_everything_is_global_attention(near, domain):
    module = attention_on("O2")
    x = grid_and_cloud(module)[domain == "points"]
    with torch.no_grad():
        everywhere = module(x).tensor
        module.neighborhood = near
        assert relative(module(x).tensor, everywhere) < 1e-12


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.3, 3.0, 8.0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (13, 13)])
def test_discs_on_a_grid_are_those_of_its_cloud(radius, shape):
    """Tiles and graph, two ways to the same result, its gradient, and its weights."""
    module = attention_on("SO2", position=EXACT, neighborhood=Disc(radius))
    grid, points = grid_and_cloud(module, *shape)
    results = []
    for x in (grid, points):
        module.zero_grad()
        out = module(x).tensor
        out = out[0].flatten(1).T if x is grid else out
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
        results.append((out.detach(), gradient, module.attention_weights(x).detach()))
    for tiles, graph in zip(*results):
        assert relative(tiles, graph) < 1e-9


@pytest.mark.parametrize("near", NEAR)
def test_continuous_elements_on_a_lattice_of_points(near, rng):
    """Points at exactly the radius, or equally near, stay neighbours when rounding moves them."""
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
    points = t(x[0].flatten(1).T[kept], grid_positions(9, 6)[0][kept])
    assert relative(out[0].flatten(1).T[kept], module(points).tensor) < 1e-12


def test_a_graph_of_the_user():
    """The edges of a disc, given by hand in any order, make attention to the disc; without any, tokens get zeros."""
    module = attention_on("O2")
    x = cloud(module.in_type, points=30, radius=4.0)
    query, key = (torch.cdist(x.coords, x.coords) <= 2).nonzero().T
    order = torch.randperm(len(key))
    edge_index = torch.stack([key, query])[:, order]
    local = module(x, edge_index=edge_index[:, edge_index[1] != 4]).tensor
    weights = module.attention_weights(x, edge_index=edge_index)
    module.neighborhood = Disc(2.0)
    expected = module(x).tensor
    assert relative(weights, module.attention_weights(x)) < 1e-12
    others = torch.arange(30) != 4
    assert local[4].abs().max() == 0
    assert relative(local[others], expected[others]) < 1e-12


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (torch.zeros(3, 5, dtype=torch.long), r"edge_index \(2, edges\) of int64, got shape \(3, 5\)"),
        (torch.zeros(2, 5), "torch.float32"),
        (torch.tensor([[0, 23], [1, 2]]), "from 23 keys"),
        (torch.tensor([[0, -1], [1, 2]]), "got indices from -1"),
        (torch.tensor([[0, 20], [1, 2]]), "joins points of different clouds"),
    ],
)
def test_wrong_graphs_are_refused(edge_index, message):
    module = attention_on("C3")
    with pytest.raises(ValueError, match=message):
        module(cloud(module.in_type), edge_index=edge_index, batch=torch.arange(23) // 12)


def test_wrong_neighbourhoods_are_refused():
    module = attention_on("C3")
    with pytest.raises(ValueError, match="take a neighborhood"):
        module(grid_and_cloud(module)[0], edge_index=torch.zeros(2, 5, dtype=torch.long))
    with pytest.raises(TypeError, match=r"such as Disc\(3.0\)"):
        attention_on("C3", neighborhood=3.0)
    with pytest.raises(ValueError, match="positive radius, got -1"):
        Disc(-1.0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        KNearest(0)


class Ring(Neighborhood):
    """A user's neighbourhood: itself, and what is at a middle distance."""

    def pairs(self, query, key, extent):
        gaps = np.linalg.norm(query[:, None] - key[None], axis=-1)
        return np.stack(np.nonzero((gaps < 1e-9) | ((gaps > 1) & (gaps < 2)))[::-1])


def test_a_users_neighbourhood():
    module = attention_on("C3", neighborhood=Ring())
    x = cloud(module.in_type)
    gaps = torch.cdist(x.coords, x.coords)
    expected = (gaps < 1e-6) | ((gaps > 1) & (gaps < 2))
    assert torch.equal(module.attention_weights(x)[0, 0] > 0, expected)


def test_graphs_are_built_once_in_a_stack(monkeypatch):
    from escnn_attn.transformer import SteerableStack

    t = fourier_type(planar_gspace("C4"), 2)
    stack = SteerableStack([SteerableSelfAttention(t, heads=1, neighborhood=Disc(2.0)) for _ in range(3)])
    built = []
    monkeypatch.setattr(Disc, "edges", lambda self, *tokens: built.append(1) or Neighborhood.edges(self, *tokens))
    stack(t(torch.randn(20, t.size), torch.randn(20, 2)))
    assert len(built) == 1


def random_graph(queries=9, keys=7, count=40):
    key, query = torch.randint(keys, (count,)), torch.randint(queries - 1, (count,)).sort().values
    query[5:30] = query[5]  # many edges into one query, none into the last
    return torch.stack([key, query.sort().values])


@pytest.mark.parametrize("size", [1, 4, 10_000])
@pytest.mark.parametrize("biased", [True, False])
def test_edges_in_chunks_agree_with_the_formula(size, biased, monkeypatch):
    monkeypatch.setattr(edges, "CHUNK", size)
    graph = random_graph()
    q, k, v = (torch.randn(n, 3, 5, dtype=torch.float64, requires_grad=True) for n in (9, 7, 7))
    bias = torch.randn(40, 3, dtype=torch.float64, requires_grad=True) if biased else None
    inputs = [x for x in (q, k, v, bias) if x is not None]

    def attend(*inputs):
        return attend_edges(*inputs[:3], 0.7, graph, inputs[3] if biased else None)

    assert relative(attend(*inputs), edge_formula(q, k, v, bias, 0.7, graph)[0]) < 1e-12
    assert torch.autograd.gradcheck(attend, inputs)
    assert torch.autograd.gradgradcheck(attend, inputs)


def test_edges_of_one_query_stay_in_one_chunk(monkeypatch):
    monkeypatch.setattr(edges, "CHUNK", 4)
    query = random_graph()[1]
    parts = list(chunks(query))
    assert torch.equal(torch.cat([query[part] for part, _ in parts]), query)
    assert all(not set(query[a].tolist()) & set(query[b].tolist()) for (a, _), (b, _) in pairwise(parts))
    assert all(len(query[part]) <= 4 or len(query[part].unique()) == 1 for part, _ in parts)


@pytest.mark.parametrize("domain", ["grid", "points"])
def test_memory_of_local_attention_is_linear(domain):
    """Nothing of tokens² is kept for the gradient: four times the tokens, at most four times the memory."""
    module = SteerableSelfAttention(fourier_type(planar_gspace("SO2"), 2, 1), heads=1, neighborhood=Disc(2.0))
    small, large = (saved(module.double(), grid_and_cloud(module, side, side)[domain == "points"]) for side in (24, 48))
    assert large < 4.2 * small


def saved(module, x) -> int:
    """How many numbers are kept for the gradient."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        module(x)
    return sum(sizes)


@pytest.mark.parametrize("near", [None, *NEAR.values()])
@pytest.mark.parametrize("name", ["C3", "SO2"])
def test_every_parameter_is_trained_and_dtypes_are_kept(near, name):
    module = attention_on(name, neighborhood=near)
    module(cloud(module.in_type)).tensor.pow(2).sum().backward()
    assert_every_parameter_has_gradient(module)
    for dtype in (torch.float32, torch.bfloat16):
        x = cloud(module.in_type)
        low = module.to(dtype)(module.in_type(x.tensor.to(dtype), x.coords)).tensor
        assert low.dtype == dtype


@pytest.mark.parametrize("near", [None, *NEAR.values()])
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_weights_of_tokens_are_shares_of_the_plane(near, domain):
    """Each point three times with a third of the weight: nothing changes; and weight zero is padding."""
    module = attention_on("O2", neighborhood=near if not isinstance(near, KNearest) else None)
    grid, points = grid_and_cloud(module)
    weights = torch.rand(70, dtype=torch.float64) + 0.1
    weights[:9] = 0
    if domain == "grid":
        out = module(grid, weights=weights.view(1, 7, 10)).tensor[0].flatten(1).T
        assert relative(out, module(points, weights=weights).tensor) < 1e-12
    else:
        out = module(points, weights=weights).tensor
    plain = module(points).tensor
    assert relative(module(points, weights=torch.full_like(weights, 3.0)).tensor, plain) < 1e-12
    assert relative(out, plain) > 1e-2
    thrice = module.in_type(points.tensor.repeat(3, 1), points.coords.repeat(3, 1))
    assert relative(module(thrice, weights=weights.repeat(3) / 3).tensor[:70], out) < 1e-12
    mask = weights > 0
    masked = module(points, weights=weights, mask=mask).tensor
    assert relative(out[mask], masked[mask]) < 1e-12
    with pytest.raises(ValueError, match="not negative"):
        module(points, weights=-weights)
    with pytest.raises(ValueError, match=r"weights of shape \(70,\)"):
        module(points, weights=weights[:5])
