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
    SteerableSelfAttention,
    fourier_type,
    planar_gspace,
)
from escnn_attn.nn.position.rotary import RotaryEncoding
from escnn_attn.testing import equivariance_error
from escnn_attn.tokens import Grid, Tokens, diameter
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
