from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from escnn_attn import NoPosition, RotaryEmbedding, SteerableSelfAttention, Tokens, fourier_type, planar_gspace
from escnn_attn.fields.functions import group_samples, synthesis_matrix
from escnn_attn.nn.position._rotation import GOLDEN_ANGLE
from escnn_attn.testing import equivariance_error
from tests.helpers import GROUPS, POSITIONS, assert_every_parameter_has_gradient, attention_on, cloud, relative, worst


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
    module = SteerableSelfAttention(t, num_heads=2, position=partial(RotaryEmbedding, tolerance=tolerance)).double()
    assert 2 * np.pi / module.position.wavenumbers[0] == pytest.approx(6)
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
    module = SteerableSelfAttention(t, num_heads=2).double()
    module.position.sample_counts = lambda *_: [8] * len(module.position.wavenumbers)
    assert max(cloud_errors(module, cloud(t, radius=10.0), rng)) > 1e-2


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_band_limits_other_than_that_of_the_types(limit):
    t = fourier_type(planar_gspace("O2"), 2, 2)
    module = SteerableSelfAttention(t, num_heads=1, max_frequency=limit, position=partial(RotaryEmbedding, tolerance=1e-10))
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
    coefficients = (
        projected[0][0].unflatten(-1, (3, module.num_heads, module.heads.channels)).permute(0, 2, 3, 4, 1)
    )  # t p h c r
    pairs = module.heads.channels // 2
    out = torch.zeros(len(x.coords), module.num_heads, module.heads.channels, A.shape[1], dtype=torch.float64)
    for h in range(module.num_heads):
        values = torch.complex(
            torch.einsum("nr,tpfr->ptfn", A, coefficients[:, :, h, :pairs]),
            torch.einsum("nr,tpfr->ptfn", A, coefficients[:, :, h, pairs:]),
        )
        waves = torch.zeros(pairs, len(elements), 2, dtype=torch.float64)
        scale = next(i for i in range(len(position.heads_per_group)) if h < sum(position.heads_per_group[: i + 1]))
        for f, index in enumerate(range(scale, len(position.wavenumbers), len(position.heads_per_group))):
            angle = index * GOLDEN_ANGLE
            w = position.wavenumbers[index] * np.array([np.cos(angle), np.sin(angle)])
            for n, g in enumerate(elements):
                waves[f, n] = torch.tensor(gspace.basespace_action(g) @ w)
        for i, x_i in enumerate(x.coords):
            shift = [torch.exp(1j * (waves @ (x_j - x_i))) for x_j in x.coords]
            logits = torch.stack([(values[0, i].conj() * s * values[1, j]).real.sum() for j, s in enumerate(shift)])
            weights = (logits * module.heads.scale).softmax(dim=0)
            total = sum(w * s * values[2, j] for j, (w, s) in enumerate(zip(weights, shift)))
            out[i, h, :pairs] = torch.einsum("fn,nr->fr", total.real, A)
            out[i, h, pairs:] = torch.einsum("fn,nr->fr", total.imag, A)
    out = out * module.gain[:, None, None]
    return module.out_layout.merge(module.project_out((out.permute(0, 3, 1, 2).flatten(2)[None],)))[0].T


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
    directed = SteerableSelfAttention(scalars, vectors, num_heads=1, position=partial(RotaryEmbedding, tolerance=1e-10))
    assert worst(equivariance_error(directed, domain="points")) < 1e-9
    blind = SteerableSelfAttention(scalars, vectors, num_heads=1, position=NoPosition)
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
    values = module.queries_and_context(*[Tokens.of(x, module.in_layout)] * 2)[1][:, :, :, 1]
    functions = torch.einsum("bhts,bsrhc->btrhc", module.attention_weights(x), values) * module.gain[:, None]
    expected = module.out_layout.merge(module.project_out((functions.flatten(3),)))
    assert relative(module(x).tensor, expected[0].T) < 1e-12


@pytest.mark.parametrize("tokens", [5, 10, 14])
def test_output_has_the_scale_of_its_input(tokens):
    t = fourier_type(planar_gspace("SO2"), 16, 3)
    module = SteerableSelfAttention(t, num_heads=4)
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
    module = SteerableSelfAttention(t, num_heads=1, position=partial(RotaryEmbedding, wavelengths=(18.0, 60.0)))
    sizes = []

    def saved(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        module(t(torch.randn(1, t.size, 40, 40)))
    assert max(sizes) < 1600 * 1600 / 10


@pytest.mark.parametrize(("num_heads", "channels"), [(2, 4), (3, 4), (5, 2), (8, 2)])
def test_heads_need_not_divide_the_channels(num_heads, channels):
    """As `docs/modules.md` says: the channels over the heads, rounded up to even, which the repr shows."""
    t = fourier_type(planar_gspace("SO2"), 8, 2)
    layer = SteerableSelfAttention(t, num_heads=num_heads)
    assert f"head_channels={channels}, " in repr(layer)
    assert layer(t(torch.randn(1, t.size, 3, 3))).type == t
    assert "head_channels=6, " in repr(SteerableSelfAttention(t, num_heads=num_heads, head_channels=6))
