"""Rotary embeddings: fractions of the channels, head groups, and how far they reach."""

from functools import partial

import pytest
import torch

from escnn_attn import (
    Disc,
    RotaryEmbedding,
    SteerableCrossAttention,
    SteerableSelfAttention,
    SteerableTransformer,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.testing import equivariance_error
from escnn_attn.tokens import Clouds, Grid
from tests.helpers import attention_on, cloud, mixed_type, relative, worst


def test_heads_differ_in_scale_where_that_saves_samples():
    heads = {name: attention_on(name, position=RotaryEmbedding).position for name in ("SO2", "C3")}
    assert [heads["SO2"].heads_per_group, heads["C3"].heads_per_group] == [[1, 1, 1], [3]]
    points = Clouds(9 * torch.randn(5, 2))
    context = torch.randn(1, 5, heads["SO2"].coefficients, 2, 3, 4)
    widths = [key.shape[-1] for key, _ in heads["SO2"].at(points, points).encode_context(context)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]


def near_heads(name: str, reach: float | None = 0.5, **options) -> SteerableSelfAttention:
    """Three heads, with waves of 2, about 4.5 and 10: they see as far as 1, 2.2, and all."""
    waves = partial(RotaryEmbedding, wavelengths=(2.0, 10.0), reach=reach, head_groups=3, tolerance=1e-9)
    return attention_on(name, position=waves, **options)


@pytest.mark.parametrize("name", ["SO2", "O2", "C3", "D4"])
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_heads_of_short_waves_see_what_is_near(name, domain):
    module = near_heads(name)
    assert worst(equivariance_error(module, domain=domain)) < 1e-8
    x = cloud(module.in_type) if domain == "points" else module.in_type(torch.randn(1, module.in_type.size, 6, 5).double())
    coords = x.coords if domain == "points" else Grid(6, 5, dtype=torch.float64).positions[0]
    distances, weights = torch.cdist(coords, coords), module.attention_weights(x)[0]
    for head, radius in enumerate((1.0, 5**0.5, torch.inf)):
        assert torch.equal(weights[head] > 0, distances <= radius + 1e-9)
    assert module(x).tensor.isfinite().all()


def test_a_far_reach_is_none_and_a_neighborhood_takes_its_place():
    x = cloud(attention_on("SO2").in_type, radius=6.0)
    outputs = []
    for reach, neighborhood in ((None, None), (100.0, None), (None, Disc(2.0)), (0.5, Disc(2.0))):
        torch.manual_seed(0)
        outputs.append(near_heads("SO2", reach, neighborhood=neighborhood)(x).tensor)
    assert relative(outputs[1], outputs[0]) < 1e-9
    assert relative(outputs[3], outputs[2]) < 1e-12
    assert relative(outputs[2], outputs[0]) > 1e-2


def test_a_reach_of_one_group_of_heads_is_refused():
    with pytest.raises(ValueError, match="reach: expected two head groups or more"):
        attention_on("SO2", position=partial(RotaryEmbedding, head_groups=1, reach=1.0))


def test_samples_of_near_heads_do_not_grow_with_the_grid():
    widths = []
    for side in (20, 60):
        grid = Grid(side, side, dtype=torch.float64)
        position = near_heads("SO2").position
        query = torch.randn(1, side**2, position.coefficients, 1, 3, 4, dtype=torch.float64)
        distances = [*position.radii[:-1], None]
        widths.append([part.shape[-1] for part in position.at(grid, grid, distances).encode_queries(query)])
    assert widths[0][:2] == widths[1][:2]
    assert widths[0][2] < widths[1][2]


def test_a_query_far_from_its_context_is_seen_by_far_heads_alone():
    t = mixed_type("SO2")
    position = partial(RotaryEmbedding, wavelengths=(2.0, 10.0), reach=0.5, head_groups=3)
    module = SteerableCrossAttention(t, t, num_heads=3, head_channels=4, position=position).double()
    x, context = cloud(t, points=4), cloud(t, points=5, seed=1)
    away = t(x.tensor, x.coords + 20.0)
    weights = module.attention_weights(away, context)[0]
    assert weights[:2].abs().max() == 0
    assert (weights[2].sum(-1) - 1).abs().max() < 1e-9
    near = module(x, context).tensor
    near.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_heads_without_a_key_in_reach_give_nothing():
    """Where the mask of a context leaves a query keys far off alone, heads that see what is near have arbitrary sums."""
    t = mixed_type("SO2")
    position = partial(RotaryEmbedding, wavelengths=(2.0, 10.0), reach=0.5, head_groups=3)
    module = SteerableCrossAttention(t, t, num_heads=3, head_channels=4, position=position).double()
    x, context = (t(torch.randn(1, t.size, 9, 8, dtype=torch.float64)) for _ in range(2))
    right = (torch.arange(8) > 5).expand(1, 9, 8)
    out = module(x, context, context_mask=right).tensor[..., 0]
    with torch.no_grad():
        module.gain[:2] = 0
    assert relative(module(x, context, context_mask=right).tensor[..., 0], out) < 1e-12


@pytest.mark.parametrize("group", ["SO2", pytest.param("C4", marks=pytest.mark.slow)])
def test_networks_with_a_reach_are_exported_and_vectorized(group):
    position = partial(RotaryEmbedding, reach=0.4, wavelengths=(3.0, 30.0))
    block = partial(steerable_block, num_heads=4, position=position)
    network, x = SteerableTransformer(group, channels=4, depth=1, block=block).eval(), torch.randn(2, 1, 29, 29)
    logits = network(x)
    exported = torch.export.export(network.export(), (x,)).module()
    assert relative(exported(x), logits) < 1e-5
    with pytest.warns(UserWarning, match="batching rule"):
        assert relative(torch.func.vmap(lambda image: network(image[None])[0])(x), logits) < 1e-5


@pytest.mark.parametrize("name", ["C3", "D4", "SO2", "O2"])
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_a_fraction_of_the_channels_turns(name, domain):
    """As exact as all of them; the pairs that do not turn see no positions."""
    module = attention_on(name, position=partial(RotaryEmbedding, rotary_fraction=0.5, head_groups=1, tolerance=1e-10))
    assert len(module.position.wavenumbers) == 1
    assert worst(equivariance_error(module, domain=domain)) < 1e-9
    position, points = module.position, Clouds(torch.randn(6, 2, dtype=torch.float64))
    size = position.coefficients
    q, k = torch.randn(2, 1, 6, size, 1, 3, 4, dtype=torch.float64)
    encoding = position.at(points, points)
    assert relative(encoding.decode_groups(encoding.encode_queries(q)), q[:, :, :, 0]) < 1e-12
    turning = torch.tensor([1, 0, 1, 0], dtype=torch.float64)  # pairs are (0, 2) and (1, 3)
    still = logits_of(encoding, q * (1 - turning), k * (1 - turning))
    assert relative(still, torch.einsum("btrihc,bsrihc->bhts", q * (1 - turning), k * (1 - turning))) < 1e-12
    whole = partial(RotaryEmbedding, rotary_fraction=1.0, wavelengths=(6.0, 6.0), head_groups=1, tolerance=1e-10)
    same = whole(fourier_type(planar_gspace(name), 4, position.max_frequency), 3).at(points, points)
    assert relative(logits_of(encoding, q * turning, k * turning), logits_of(same, q * turning, k * turning)) < 1e-9


def logits_of(encoding, q, k):
    """Inner products (b, h, t, s) of encoded queries and keys (b, t, r, 1, h, c) of one head group."""
    ((key, _),) = encoding.encode_context(k.expand(-1, -1, -1, 2, -1, -1))
    return encoding.encode_queries(q)[0] @ key.mT


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(ValueError, match=r"fraction of the channels in \(0, 1\]"):
        attention_on("SO2", position=partial(RotaryEmbedding, rotary_fraction=fraction))


def test_at_least_one_head_group_is_asked_for():
    with pytest.raises(ValueError, match="head_groups must be at least 1, got 0"):
        attention_on("SO2", position=partial(RotaryEmbedding, head_groups=0))
