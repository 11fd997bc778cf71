"""Position embeddings, and one as a user would write it."""

from functools import partial

import pytest
import torch

from escnn_attn import (
    Disc,
    DistanceBias,
    NoPosition,
    PositionEmbedding,
    RadialBias,
    RotaryEmbedding,
    SteerableCrossAttention,
    SteerableSelfAttention,
    fourier_type,
    planar_gspace,
)
from escnn_attn.nn.position.rotary import RotaryEncoding
from escnn_attn.testing import equivariance_error
from escnn_attn.tokens import Clouds, Grid, Tokens, diameter
from escnn_attn.tokens.domain import _span
from tests.helpers import assert_every_parameter_has_gradient, attention_on, cloud, mixed_type, relative, worst


def test_tokens_beyond_the_stated_distance_are_refused():
    module = attention_on("SO2", position=partial(RotaryEmbedding, max_distance=4.0))
    module(cloud(module.in_type, radius=1.9))
    with pytest.raises(ValueError, match="max_distance is 4"):
        module(cloud(module.in_type, points=60, radius=3.0))
    with pytest.raises(ValueError, match="max_distance is 4"):
        module(module.in_type(torch.randn(1, module.in_type.size, 9, 9).double()))


def test_a_stated_distance_gives_the_result_of_a_measured_one():
    module = attention_on("O2", position=partial(RotaryEmbedding, tolerance=1e-10))
    x = cloud(module.in_type)
    measured = module(x).tensor
    module.position.max_distance = 12.0
    assert relative(module(x).tensor, measured) < 1e-8


@pytest.mark.parametrize("points", [1, 2, 30])
def test_diameter_is_that_of_all_pairs(points):
    x, y = torch.randn(3, points, 2), 2 * torch.randn(3, 5, 2)
    together = torch.cat([x, y], dim=1)
    found = _span(x, y)
    assert torch.cdist(together, together).max().item() <= found * 1.0001
    assert found <= torch.cdist(together, together).max().item() * 1.006
    assert _span(x[:, :0], y[:, :0]) == 0


def test_the_diameter_of_grids_is_that_of_their_positions():
    for query, key in ((Grid(4, 7), Grid(4, 7)), (Grid(9, 9).disc(), Grid(3, 3, spacing=5.0))):
        assert abs(diameter(query, key) - _span(query.positions, key.positions)) < 1e-5


class Warm(RotaryEmbedding):
    """A user's variant of the rotary embedding: another encoding of queries, and a bias per head."""

    def __init__(self, head_type, num_heads, **options):
        super().__init__(head_type, num_heads, **options)
        self.slope = torch.nn.Parameter(torch.arange(num_heads).double())

    def at(self, query, key, distances=(None,)):
        encoding = super().at(query, key, distances)
        return WarmEncoding(self, encoding.queries, encoding.keys)

    def bias(self, x_query, x_key):
        return -self.slope[:, None, None] * (x_query[:, :, None] - x_key[:, None]).norm(dim=-1)[:, None]


class WarmEncoding(RotaryEncoding):
    def encode_queries(self, functions):
        return [2 * query for query in super().encode_queries(functions)]


@pytest.mark.parametrize("name", ["C3", "SO2"])
@pytest.mark.parametrize("head_groups", [1, 2, 3])
def test_an_encoding_of_a_subclass_and_its_bias_are_used(name, head_groups):
    mine = attention_on(name, position=partial(Warm, head_groups=head_groups))
    theirs = attention_on(name, position=partial(RotaryEmbedding, head_groups=head_groups))
    theirs.load_state_dict({key: value for key, value in mine.state_dict().items() if key != "position.slope"})
    x = cloud(mine.in_type)
    distances = torch.cdist(x.coords, x.coords)
    logits = 2 * theirs.attention_weights(x).log() - mine.position.slope[:, None, None] * distances
    assert relative(mine.attention_weights(x), logits.softmax(-1)) < 1e-10


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
    assert module(away, context).tensor.isfinite().all()
    near = module(x, context).tensor
    near.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


class LogDistance(PositionEmbedding):
    """A user's own embedding, as one would write it outside the package: nearer tokens in log-distance count more."""

    def __init__(self, head_type, heads):
        super().__init__(head_type, heads)
        self.slope = torch.nn.Parameter(torch.ones(heads))

    def bias(self, x_query, x_key):
        return -self.slope[:, None, None] * torch.log1p((x_query[:, :, None] - x_key[:, None]).norm(dim=-1))[:, None]


@pytest.mark.parametrize("name", ["SO2", "O2", "C3"])
def test_a_users_position_embedding(name):
    module = attention_on(name, position=LogDistance)
    assert worst(equivariance_error(module, domain="points")) < 1e-12
    assert worst(equivariance_error(module, domain="grid")) < 1e-12
    module(cloud(module.in_type)).tensor.pow(2).sum().backward()
    assert_every_parameter_has_gradient(module)


def test_heads_that_are_not_functions_on_the_group_are_refused():
    with pytest.raises(ValueError, match="spectral representation"):
        RotaryEmbedding(fourier_type(planar_gspace("C4"), 2), 1)
    with pytest.raises(ValueError, match="spectral representation"):
        RotaryEmbedding(mixed_type("SO2", 2), 1)


def test_number_of_samples_is_invisible():
    """A model trained with one tolerance can be evaluated with another."""
    module = attention_on("O2", position=partial(RotaryEmbedding, tolerance=1e-4))
    x = cloud(module.in_type)
    coarse = module(x).tensor
    module.position.tolerance = 1e-10
    assert relative(coarse, module(x).tensor) < 1e-3


def test_distance_bias_is_a_gaussian_window():
    """The fused form against the formula, far from the origin, for heads of different widths."""
    module = attention_on("D4", position=partial(DistanceBias, lengths=(0.5, 4.0)))
    x = cloud(module.in_type)
    x = module.in_type(x.tensor, x.coords + torch.tensor([50.0, -80.0]))
    rates = module.position.log_rate.exp()
    fresh = DistanceBias(fourier_type(planar_gspace("D4"), 2, 1), 3, lengths=(0.5, 4.0)).log_rate.exp()
    assert relative(fresh, 0.5 / torch.tensor([0.5, 2**0.5, 4.0]) ** 2) < 1e-6
    blind = attention_on("D4", position=NoPosition)
    blind.load_state_dict(module.state_dict(), strict=False)
    squares = torch.cdist(x.coords, x.coords).square()
    expected = (blind.attention_weights(x).log() - rates[:, None, None] * squares).softmax(dim=-1)
    assert relative(module.attention_weights(x), expected) < 1e-10


def test_distance_bias_stays_fused():
    """Nothing of tokens² is kept for the gradient, nor a mask made."""
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    module = SteerableSelfAttention(t, num_heads=1, position=DistanceBias)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        module(t(torch.randn(1, t.size, 40, 40)))
    assert max(sizes) < 1600 * 1600 / 10
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = t(torch.randn(1, t.size, 60, 60))
        low = module(x).tensor
    assert relative(low.float(), module(x).tensor) < 3e-2


def test_radial_bias_is_its_formula():
    module = attention_on("C3", position=partial(RadialBias, extent=4.0, centers=5))
    torch.nn.init.normal_(module.position.weight)
    x = cloud(module.in_type)
    blind = attention_on("C3", position=NoPosition)
    blind.load_state_dict(module.state_dict(), strict=False)
    gaps = torch.cdist(x.coords, x.coords)[..., None] - torch.arange(5)
    bias = torch.einsum("hn,tsn->hts", module.position.weight, (-0.5 * gaps**2).exp())
    expected = (blind.attention_weights(x).log() + bias).softmax(dim=-1)
    assert relative(module.attention_weights(x), expected) < 1e-10


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


def test_a_bias_that_takes_samples_for_heads_is_refused():
    class Flat(PositionEmbedding):
        def bias(self, x_query, x_key):
            return -torch.cdist(x_query, x_key)

    module = attention_on("C3", position=Flat)
    x = cloud(module.in_type, points=20)
    module(x)
    with pytest.raises(ValueError, match=r"expected a bias \(b, h or 1, t, s\) of 2 samples, got \(2, 10, 10\)"):
        module(x, batch=torch.arange(20) // 10)


def test_a_kept_domain_holds_no_function_of_parameters():
    """Two training steps on one grid: the second sees the parameters of the first step, and a graph of its own."""
    module = attention_on("SO2", position=DistanceBias)
    x = torch.randn(1, module.in_type.size, 4, 4, dtype=torch.float64)
    tokens = Tokens.on(Grid(4, 4, dtype=torch.float64), x, module.in_layout)
    with torch.no_grad():
        module.forward_tokens(tokens)
    for _ in range(2):
        module.zero_grad()
        out = module.forward_tokens(tokens).features
        sum(f.square().sum() for f in out).backward()
        assert module.position.log_rate.grad.abs().sum() > 0
        with torch.no_grad():
            module.position.log_rate.add_(0.5)
    fresh = module.forward_tokens(Tokens(tokens.features, Grid(4, 4, dtype=torch.float64))).features
    assert all(relative(a, b) < 1e-12 for a, b in zip(module.forward_tokens(tokens).features, fresh))


def test_a_band_limit_that_a_group_does_not_have_is_refused():
    with pytest.raises(ValueError, match="max_frequency of C3 must be from 0 to 1, got 2"):
        attention_on("C3", max_frequency=2)
    with pytest.raises(ValueError, match="must be from 0, got -1"):
        attention_on("SO2", max_frequency=-1)


@pytest.mark.parametrize("extent", [1e3, 1e4, 1e5])
def test_distance_biases_of_neighbors_on_wide_clouds(extent):
    """They come from differences, as |x|² would be rounded."""
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    attention = SteerableSelfAttention(t, num_heads=1, position=DistanceBias, neighborhood=Disc(3.0))
    centers = torch.randn(20, 1, 2, dtype=torch.float64) * extent
    coords = (centers + torch.rand(20, 5, 2, dtype=torch.float64) * 2).flatten(0, 1).float()
    x = torch.randn(100, t.size)
    exact = attention.double()(t(x.double(), coords.double())).tensor
    assert relative(attention.float()(t(x, coords)).tensor.double(), exact) < 1e-5


def test_radial_biases_keep_no_gaussian_for_the_gradient():
    t, sizes = fourier_type(planar_gspace("SO2"), 2, 1), []
    for centers in (4, 32):
        attention = SteerableSelfAttention(t, num_heads=2, position=partial(RadialBias, centers=centers))
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=kept: (to.append(x.nbytes), x)[1], lambda x: x):
            attention(t(torch.randn(1, t.size, 9, 9)))
        sizes.append(sum(kept))
    assert sizes[1] - sizes[0] < 2 * 28 * 8
