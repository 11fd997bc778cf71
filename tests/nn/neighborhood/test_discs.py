"""Discs on grids: by tiles, and by masks."""

import pytest
import torch

from escnn_attn import Disc
from escnn_attn.nn.neighborhood import _discs
from escnn_attn.nn.neighborhood._discs import WideDiscs
from escnn_attn.nn.neighborhood._patterns import AllPairs
from escnn_attn.nn.neighborhood._tiles import CutDiscs, Tiles, tile_side
from escnn_attn.tokens import Grid
from tests.helpers import attention_on, relative
from tests.nn.neighborhood.test_neighborhoods import EXACT, grid_and_cloud


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


def test_grids_are_tiled():
    """Tiles for discs that are small beside the grid; a mask over all pixels, in bands, where they are not."""
    grid = Grid(32, 32)
    kinds = {radius: type(Disc(radius).pattern(grid, grid)) for radius in (1.0, 3.0, 12.0, 30.0, 99.0)}
    assert kinds == {1.0: Tiles, 3.0: Tiles, 12.0: WideDiscs, 30.0: WideDiscs, 99.0: AllPairs}


@pytest.mark.parametrize("height", [1, 5, 28, 57])
@pytest.mark.parametrize("halo", [0, 1, 3, 9, 27])
def test_tiles_in_a_row_are_no_smaller_than_their_halo(height, halo):
    """Or a row of them would not have all that the next one needs."""
    side, cost = tile_side(height, 31, min(halo, max(height, 31) - 1))
    assert side >= halo or side >= max(height, 31)
    assert cost > 0


def attended(pattern, leaves):
    """What discs of all queries give, and the gradients of queries, keys and values."""
    out = pattern.attend(*leaves, 0.3, lambda *_: None)
    return [out, *torch.autograd.grad(out.square().sum(), leaves)]


def kept_masks(pattern, leaves):
    """Numbers in the masks (…, t, 72) that are kept for the gradient."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        pattern.attend(*leaves, 0.3, lambda *_: None)
    return {x.data_ptr(): x.numel() for x in kept if x.dim() == 4 and x.shape[3] == 72}


def test_bands_of_wide_discs_are_the_mask_of_all_pairs(monkeypatch):
    """In little memory: they are computed again for the gradient."""
    grid = Grid(9, 8, dtype=torch.float64)
    leaves = [torch.randn(2, 3, 72, 6, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    pattern = WideDiscs(grid, grid, 5.0)
    whole, kept = attended(pattern, leaves), kept_masks(pattern, leaves)
    expected = (leaves[0] @ leaves[1].mT * 0.3).masked_fill(~pattern.allowed(), -torch.inf).softmax(-1) @ leaves[2]
    assert relative(whole[0], expected) < 1e-12
    monkeypatch.setattr(_discs, "KEPT", 0)
    monkeypatch.setattr(_discs, "BAND", 10 * 72 * 2)
    banded = WideDiscs(grid, grid, 5.0)
    for found, all_at_once in zip(attended(banded, leaves), whole, strict=True):
        assert relative(found, all_at_once) < 1e-12
    assert list(kept.values()) == [72 * 72]
    assert not kept_masks(banded, leaves)


def test_layers_share_the_mask_of_wide_discs():
    grid = Grid(9, 8)
    pattern = WideDiscs(grid, grid, 5.0)
    leaves = [torch.randn(1, 1, 72, 6, requires_grad=True) for _ in range(3)]
    first, second = (kept_masks(pattern, leaves) for _ in range(2))
    assert first == second
    assert len(first) == 1


def test_wide_discs_of_a_grid_that_is_cut_are_over_its_own_tokens():
    """By the mask that layers share: over the whole grid the corners would be left out by another, which is not kept."""
    small, large = Grid(15, 15).disc(), Grid(60, 60).disc()
    assert isinstance(Disc(3.0).pattern(small, small), WideDiscs)
    assert isinstance(Disc(3.0).pattern(large, large), CutDiscs)


@pytest.mark.parametrize(("query", "key", "radius"), [(2, 30, 5.0), (8, 40, 9.0), (3, 9, 2.0), (5, 5, 9.0)])
def test_discs_of_a_small_grid_reach_into_a_larger_one(query, key, radius):
    """The larger grid lies around the smaller one, and a disc may reach farther than the smaller is wide."""
    pattern = Disc(radius).pattern(*(Grid(side, side, dtype=torch.float64) for side in (query, key)))
    q, k, v = (torch.randn(1, 1, side**2, 4, dtype=torch.float64) for side in (query, key, key))
    allowed = pattern.allowed()
    logits = q @ k.mT if allowed is None else (q @ k.mT).masked_fill(~allowed, -torch.inf)
    assert relative(pattern.attend(q, k, v, 1.0, lambda *_: None), logits.softmax(-1) @ v) < 1e-12


def test_elements_share_the_mask_of_wide_discs():
    """The keys of all elements of a group at a token are under one mask, which is made once."""
    grid = Grid(9, 8)
    pattern, q = WideDiscs(grid, grid, 5.0), torch.randn(1, 1, 72, 6, requires_grad=True)
    keys = torch.randn(1, 1, 144, 6, requires_grad=True)
    found = []
    for _ in range(2):
        with torch.autograd.graph.saved_tensors_hooks(lambda x: found.append(x) or x, lambda x: x):
            pattern.attend(q, keys, keys, 0.3, lambda *_: None, copies=2)
    assert len({x.data_ptr() for x in found if x.dim() == 4 and x.shape[3] == 144 and x.shape[2] == 72}) == 1


def test_a_mask_made_in_inference_mode_serves_training():
    grid, (q, k, v) = Grid(9, 8), (torch.randn(1, 1, 72, 6, requires_grad=True) for _ in range(3))
    pattern = WideDiscs(grid, grid, 5.0)
    with torch.inference_mode():
        pattern.attend(q, k, v, 0.3, lambda *_: None)
    pattern.attend(q, k, v, 0.3, lambda *_: None).sum().backward()
    assert q.grad is not None
