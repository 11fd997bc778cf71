from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from escnn_attn import (
    NoPosition,
    PositionEmbedding,
    QueryKeyRotaryEmbedding,
    RotaryEmbedding,
    SteerableSelfAttention,
    fourier_type,
    planar_gspace,
)
from escnn_attn.positions import diameter
from escnn_attn.rotation import GOLDEN_ANGLE
from escnn_attn.sampling import group_samples, synthesis_matrix
from escnn_attn.testing import equivariance_error
from escnn_attn.tokens import grid_positions

from .helpers import GROUPS, assert_every_parameter_has_gradient, cloud, mixed_type, relative, worst

POSITIONS = {"rotary": RotaryEmbedding, "query-key rotary": QueryKeyRotaryEmbedding, "none": NoPosition}


def attention_on(name: str, **options) -> SteerableSelfAttention:
    return SteerableSelfAttention(mixed_type(name), heads=3, head_channels=4, **options).double()


@pytest.mark.parametrize("name", [n for n in GROUPS if n not in ("SO2", "O2")])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_finite_groups_are_exact(name, position, domain):
    module = attention_on(name, position=POSITIONS[position])
    assert worst(equivariance_error(module, domain=domain)) < 1e-12


@pytest.mark.parametrize("name", ["SO2", "O2"])
@pytest.mark.parametrize("position", POSITIONS)
def test_quarter_turns_of_a_grid_are_exact(name, position):
    module = attention_on(name, position=POSITIONS[position])
    errors = equivariance_error(module, domain="grid")
    assert len(errors) == (4 if name == "SO2" else 8)
    assert worst(errors) < 1e-12


@pytest.mark.parametrize("name", ["SO2", "O2"])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("limit", [1, 2, 3, 4])
@pytest.mark.parametrize("distance", [2.0, 20.0])
def test_continuous_elements_keep_the_tolerance_asked(name, tolerance, limit, distance, rng):
    """At arbitrary positions, with queries and keys large enough for sharp attention."""
    t = fourier_type(planar_gspace(name), 8, limit)
    module = SteerableSelfAttention(t, heads=2, position=partial(RotaryEmbedding, tolerance=tolerance)).double()
    assert 2 * np.pi / module.position.radians[0] == pytest.approx(6)
    x = cloud(t, points=30, radius=distance / 2)
    errors = cloud_errors(module, t(3 * x.tensor, x.coords), rng)
    assert max(errors) < 10 * tolerance


def cloud_errors(module, x, rng) -> list[float]:
    from escnn_attn.testing import random_elements, transform

    with torch.no_grad():
        y = module(x)
        return [
            relative(module(transform(x, g)).tensor, transform(y, g).tensor) for g in random_elements(x.type.fibergroup, 4, rng)
        ]


def test_without_enough_samples_equivariance_is_lost(rng):
    """The samples are what makes attention equivariant: the check above can fail."""
    t = fourier_type(planar_gspace("SO2"), 4, 2)
    module = SteerableSelfAttention(t, heads=2).double()
    module.position.sample_counts = lambda *_: [8]
    assert max(cloud_errors(module, cloud(t, radius=10.0), rng)) > 1e-2


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_band_limits_other_than_that_of_the_types(limit):
    t = fourier_type(planar_gspace("O2"), 2, 2)
    module = SteerableSelfAttention(t, heads=1, max_frequency=limit, position=partial(RotaryEmbedding, tolerance=1e-10))
    assert worst(equivariance_error(module, domain="points")) < 1e-9


@pytest.mark.parametrize("name", GROUPS)
def test_translations_are_exact(name):
    module = attention_on(name)
    x = cloud(module.in_type)
    shifted = module.in_type(x.tensor, x.coords + torch.tensor([3.0, -40.0]))
    assert relative(module(shifted).tensor, module(x).tensor) < 1e-12


def naive(module: SteerableSelfAttention, x, samples: int) -> torch.Tensor:
    """The formula of rotary attention, one pair of points and one head at a time, integrated over `samples` rotations."""
    gspace, group = module.in_type.gspace, module.in_type.fibergroup
    position, irreps = module.position, module.position.functions.irreps
    elements = group_samples(group, samples)
    A = torch.tensor(synthesis_matrix(group, irreps, elements))
    tokens = module.in_layout.split(x.tensor.T[None])
    projected = module.project_in(tokens)
    pieces = []
    for feature, d in zip(projected, module.dims):
        copies = feature.unflatten(-1, (3, module.heads, module.channels, -1))[:, 0]  # d t p h c j
        pieces += [copies[i, ..., j] for j in range(copies.shape[-1]) for i in range(d)]
    coefficients = torch.stack(pieces, dim=-1)  # t p h c r
    pairs = module.channels // 2
    out = torch.zeros(len(x.coords), module.heads, module.channels, len(pieces), dtype=torch.float64)
    for h in range(module.heads):
        values = torch.complex(
            torch.einsum("nr,tpfr->ptfn", A, coefficients[:, :, h, :pairs]),
            torch.einsum("nr,tpfr->ptfn", A, coefficients[:, :, h, pairs:]),
        )
        waves = torch.zeros(pairs, len(elements), 2, dtype=torch.float64)
        for f, radians in enumerate(position.radians):
            w = radians * np.array([np.cos(f * GOLDEN_ANGLE), np.sin(f * GOLDEN_ANGLE)])
            for n, g in enumerate(elements):
                waves[f, n] = torch.tensor(gspace.basespace_action(g) @ w)
        for i, x_i in enumerate(x.coords):
            shift = [torch.exp(1j * (waves @ (x_j - x_i))) for x_j in x.coords]
            logits = torch.stack([(values[0, i].conj() * s * values[1, j]).real.sum() for j, s in enumerate(shift)])
            weights = (logits * module.scale).softmax(dim=0)
            total = sum(w * s * values[2, j] for j, (w, s) in enumerate(zip(weights, shift)))
            out[i, h, :pairs] = torch.einsum("fn,nr->fr", total.real, A)
            out[i, h, pairs:] = torch.einsum("fn,nr->fr", total.imag, A)
    out = out * module.gain[:, None, None]
    features, start = [], 0
    for d, copies in zip(module.dims, module.copies):
        part = out[..., start : start + d * copies].unflatten(-1, (copies, d))  # t h c j d
        features.append(part.permute(4, 0, 1, 2, 3).flatten(2)[:, None])
        start += d * copies
    return module.out_layout.merge(module.project_out(tuple(features)))[0].T


@pytest.mark.parametrize("name", ["trivial", "C3", "D4", "SO2", "O2"])
def test_rotary_attention_equals_a_naive_twin(name):
    module = attention_on(name, position=partial(RotaryEmbedding, tolerance=1e-12))
    x = cloud(module.in_type, points=7)
    with torch.no_grad():
        assert relative(module(x).tensor, naive(module, x, samples=96)) < 1e-10


@pytest.mark.parametrize("name", ["trivial", "C3", "O2"])
@pytest.mark.parametrize("position", POSITIONS)
def test_every_parameter_is_trained(name, position):
    module = attention_on(name, position=POSITIONS[position])
    module(cloud(module.in_type)).tensor.pow(2).sum().backward()
    assert_every_parameter_has_gradient(module)


def test_scalars_in_directed_fields_out():
    """Lifting: the values pick up direction from where tokens are."""
    gspace = planar_gspace("SO2")
    scalars, vectors = gspace.type(gspace.trivial_repr), gspace.type(gspace.irrep(1))
    directed = SteerableSelfAttention(scalars, vectors, heads=1, position=partial(RotaryEmbedding, tolerance=1e-10))
    assert worst(equivariance_error(directed, domain="points")) < 1e-9
    blind = SteerableSelfAttention(scalars, vectors, heads=1, position=NoPosition)
    assert blind(scalars(torch.randn(1, 1, 5, 5))).tensor.abs().max() == 0


def test_weights_are_invariant_and_sum_to_one(rng):
    from escnn_attn.testing import random_elements, transform

    module = attention_on("O2", position=partial(RotaryEmbedding, tolerance=1e-10))
    x = cloud(module.in_type)
    weights = module.attention_weights(x)
    assert weights.shape == (1, 3, 23, 23)
    assert weights.sum(-1).sub(1).abs().max() < 1e-12
    g = random_elements(x.type.fibergroup, 2, rng)[1]
    assert relative(module.attention_weights(transform(x, g)), weights) < 1e-8


def test_weights_reproduce_the_output():
    """Without positions and with one-hot-like keys, out = Σ weights · values."""
    module = attention_on("C3", position=NoPosition)
    x = cloud(module.in_type, points=6)
    tokens_v = module._functions(_tokens(module, x))[2]
    mixed = torch.einsum("bhts,bhscr->bhtcr", module.attention_weights(x), tokens_v)
    from escnn_attn.functional import from_coefficients

    coefficients = mixed.permute(4, 0, 2, 1, 3).flatten(3)
    expected = module.out_layout.merge(module.project_out(from_coefficients(coefficients, module.dims, module.copies)))
    assert relative(module(x).tensor, expected[0].T) < 1e-12


def _tokens(module, x):
    from escnn_attn.tokens import domain_of, to_tokens

    return to_tokens(x, module.in_layout, domain_of(x))


@pytest.mark.parametrize("name", ["C3", "SO2"])
def test_clouds_of_unequal_sizes_do_not_see_each_other(name):
    module = attention_on(name, position=partial(RotaryEmbedding, max_distance=8.0))
    x = cloud(module.in_type, points=11)
    batch = torch.tensor([1, 0, 1, 1, 3, 0, 1, 3, 1, 0, 3])
    out = module(x, batch=batch, batch_size=5).tensor
    for b in (0, 1, 3):
        alone = module(module.in_type(x.tensor[batch == b], x.coords[batch == b])).tensor
        assert relative(out[batch == b], alone) < 1e-12


@pytest.mark.parametrize("position", POSITIONS)
def test_masked_tokens_change_nothing_whatever_they_hold(position):
    module = attention_on("C3", position=POSITIONS[position])
    t = module.in_type
    x = torch.randn(3, t.size, 3, 4, dtype=torch.float64)
    mask = torch.ones(3, 3, 4, dtype=torch.bool)
    mask[0, 1:] = False
    mask[2] = False
    poisoned = x.masked_fill(~mask[:, None], float("nan"))
    out, other = module(t(x), mask=mask).tensor, module(t(poisoned), mask=mask).tensor
    assert torch.equal(out, other)
    assert out.masked_select(~mask[:, None].expand_as(out)).abs().max() == 0
    assert relative(out[1], module(t(x[1:2])).tensor[0]) < 1e-12


def test_dropout_drops_whole_fields():
    t = mixed_type("D4")
    module = SteerableSelfAttention(t, heads=1, head_channels=2, dropout=0.5)
    out = module(t(torch.randn(1, t.size, 6, 6))).tensor
    dropped = 0
    for start, end in zip(t.fields_start.astype(int), t.fields_end.astype(int)):
        zero = (out[0, start:end] == 0).all(0)
        assert torch.equal(zero, (out[0, start:end] == 0).any(0))
        dropped += zero.double().mean() / len(t)
    assert 0.4 < dropped < 0.6
    assert (module.eval()(t(torch.randn(1, t.size, 6, 6))).tensor != 0).all()


def test_grid_positions_agree_with_escnn():
    """(x, y) with y up: the first pixel is top left."""
    corners = grid_positions(3, 5)[0][[0, 4, -1]]
    assert corners.tolist() == [[-2, 1], [2, 1], [2, -1]]


@pytest.mark.parametrize("shape", [(7, 7), (3, 8)])
def test_a_grid_is_the_cloud_of_its_pixels(shape):
    module = attention_on("SO2", position=partial(RotaryEmbedding, tolerance=1e-12))
    x = torch.randn(1, module.in_type.size, *shape, dtype=torch.float64)
    points = module.in_type(x.flatten(2)[0].T.contiguous(), grid_positions(*shape)[0])
    assert relative(module(points).tensor, module(module.in_type(x)).tensor.flatten(2)[0].T) < 1e-12


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
    import copy

    return copy.deepcopy(module).double()


def test_bfloat16_modules_run():
    module = attention_on("SO2").bfloat16()
    x = module.in_type(torch.randn(1, module.in_type.size, 5, 5))
    low = module(module.in_type(x.tensor.bfloat16())).tensor
    assert low.dtype == torch.bfloat16
    assert relative(low.float(), module.float()(x).tensor) < 5e-2


@pytest.mark.parametrize("domain", ["grid", "points"])
def test_training_after_inference_mode(domain):
    module = attention_on("O2")
    t = module.in_type
    x = cloud(t) if domain == "points" else t(torch.randn(1, t.size, 6, 5, dtype=torch.float64))
    with torch.inference_mode():
        before = module(x).tensor.clone()
    out = module(x).tensor
    out.sum().backward()
    torch.testing.assert_close(out.detach(), before)


def test_no_points_at_all():
    module = attention_on("SO2")
    nothing = module.in_type(torch.zeros(0, module.in_type.size).double(), torch.zeros(0, 2).double())
    assert module(nothing).tensor.shape == (0, module.out_type.size)
    assert module(nothing, batch=torch.zeros(0, dtype=torch.long), batch_size=3).tensor.shape == (0, module.out_type.size)
    with pytest.raises(ValueError, match="no batch to tell"):
        module(nothing, batch_size=3)


def test_number_of_samples_is_invisible():
    """A model trained with one tolerance can be evaluated with another."""
    module = attention_on("O2", position=partial(RotaryEmbedding, tolerance=1e-4))
    x = cloud(module.in_type)
    coarse = module(x).tensor
    module.position.tolerance = 1e-10
    assert relative(coarse, module(x).tensor) < 1e-3


@pytest.mark.parametrize("tokens", [5, 10, 14])
def test_output_has_the_scale_of_its_input(tokens):
    t = fourier_type(planar_gspace("SO2"), 16, 3)
    module = SteerableSelfAttention(t, heads=4)
    out = module(t(torch.randn(2, t.size, tokens, tokens))).tensor
    assert 1 / 3 < out.std().item() < 3


def test_second_derivatives_agree_with_the_math_backend():
    module = attention_on("C3")
    x = cloud(module.in_type, points=4)
    features = x.tensor.clone().requires_grad_()

    def energy(f):
        return module(module.in_type(f, x.coords)).tensor.pow(2).sum()

    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(energy, features, fast_mode=True)


def test_memory_of_rotary_attention_is_linear():
    """No tensor of tokens² is saved for the gradient."""
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    module = SteerableSelfAttention(t, heads=1)
    sizes = []

    def saved(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        module(t(torch.randn(1, t.size, 40, 40)))
    assert max(sizes) < 1600 * 1600 / 10


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
    assert torch.cdist(together, together).max().item() <= diameter(x, y) * 1.0001
    assert diameter(x, y) <= torch.cdist(together, together).max().item() * 1.006
    assert diameter(x[:, :0], y[:, :0]) == 0


class StillValues(RotaryEmbedding):
    """A user's change of one hook of an embedding of this library."""

    def encode_value(self, v, x):
        return self._at(x)[1].encode(v, turn=False)

    def decode(self, out, x):
        return self._at(x)[0].decode(out, turn=False)


def test_overridden_hooks_of_a_subclass_are_used():
    torch.manual_seed(1)
    mine = attention_on("C3", position=StillValues)
    torch.manual_seed(1)
    theirs = attention_on("C3", position=QueryKeyRotaryEmbedding)
    x = cloud(mine.in_type)
    torch.testing.assert_close(mine(x).tensor / mine.gain[0], theirs(x).tensor / theirs.gain[0])


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, "heads must be at least 1"),
        ({"heads": 2, "head_channels": 3}, "even"),
        ({"heads": 2, "dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"heads": 2, "position": partial(RotaryEmbedding, wavelengths=(9.0, 3.0))}, "shortest <= longest"),
        ({"heads": 2, "position": partial(RotaryEmbedding, tolerance=0.0)}, "positive tolerance"),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SteerableSelfAttention(mixed_type("SO2"), **options)


def test_heads_that_are_not_functions_on_the_group_are_refused():
    with pytest.raises(ValueError, match="spectral representation"):
        RotaryEmbedding(fourier_type(planar_gspace("C4"), 2), 1)
    with pytest.raises(ValueError, match="spectral representation"):
        RotaryEmbedding(mixed_type("SO2", 2), 1)


def test_wrong_inputs_are_refused():
    module = attention_on("C3")
    t = module.in_type
    other = fourier_type(planar_gspace("C3"), 2)
    with pytest.raises(TypeError, match="expected a geometric tensor of type"):
        module(other(torch.randn(1, 6, 3, 3)))
    with pytest.raises(TypeError, match="GeometricTensor"):
        module(torch.randn(1, t.size, 3, 3))
    with pytest.raises(ValueError, match="this tensor is a grid"):
        module(t(torch.randn(1, t.size, 3, 3).double()), batch=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="23 int64 indices"):
        module(cloud(t), batch=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="batch_size is 1"):
        module(cloud(t), batch=torch.arange(23), batch_size=1)
    with pytest.raises(ValueError, match="bool mask of shape"):
        module(t(torch.randn(1, t.size, 3, 3).double()), mask=torch.ones(1, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="finite coords"):
        module(t(torch.randn(2, t.size).double(), torch.tensor([[0.0, float("nan")], [0.0, 1.0]])))
    with pytest.raises(TypeError, match="one gspace"):
        SteerableSelfAttention(t, mixed_type("D3"), heads=1)
