"""Derivatives by the transforms of `torch.func`."""

from functools import partial

import escnn.nn
import pytest
import torch
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from escnn_attn import (
    Disc,
    DistanceBias,
    FourierFeedForward,
    FourierGELU,
    GroupSelfAttention,
    KNearest,
    NoPosition,
    RadialBias,
    RotaryEmbedding,
    SteerableConvolution,
    field_type,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from tests.helpers import randomize, relative

SPECTRAL, REGULAR = fourier_type(planar_gspace("O2"), 4, 2), fourier_type(planar_gspace("C4"), 4)
MODULES = {
    "block": lambda: steerable_block(SPECTRAL, num_heads=2),
    "block of samples, without position": lambda: steerable_block(
        SPECTRAL, num_heads=2, position=NoPosition, feedforward=FourierFeedForward
    ),
    "block of discs": lambda: steerable_block(SPECTRAL, num_heads=2, neighborhood=Disc(2.0)),
    "group attention": lambda: GroupSelfAttention(REGULAR, num_heads=2),
    "nonlinearity": lambda: FourierGELU(SPECTRAL),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # of torch's fused attention under vmap
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),  # which torch's own forward mode uses
]


def setup(name: str) -> tuple:
    module = randomize(MODULES[name]().double())
    parameters = {key: value.detach() for key, value in module.named_parameters()}
    x = torch.randn(3, module.in_type.size, 5, 5, dtype=torch.float64)
    return module, parameters, x


@pytest.mark.parametrize("name", MODULES)
def test_gradients_of_samples_are_those_of_each_alone(name):
    module, parameters, x = setup(name)

    def loss(parameters, x):
        return functional_call(module, parameters, (module.in_type(x),)).tensor.square().sum()

    by_sample = vmap(grad(loss, argnums=(0, 1)), (None, 0))(parameters, x[:, None])
    for i in range(len(x)):
        leaf = x[i : i + 1].requires_grad_()
        wanted = torch.autograd.grad(loss(dict(module.named_parameters()), leaf), [leaf, *module.parameters()])
        for found, one in zip((by_sample[1], *by_sample[0].values()), wanted, strict=True):
            assert relative(found[i], one) < 1e-10


@pytest.mark.parametrize("name", MODULES)
def test_forward_and_reverse_mode_agree(name):
    """torch's fused attention has no forward mode, so it is spelled out."""
    module, _, x = setup(name)
    direction = torch.randn_like(x)
    with sdpa_kernel(SDPBackend.MATH):
        out, along = jvp(lambda x: module(module.in_type(x)).tensor, (x,), (direction,))
        against = torch.randn_like(out)
        (back,) = vjp(lambda x: module(module.in_type(x)).tensor, x)[1](against)
    assert relative((along * against).sum(), (direction * back).sum()) < 1e-10
    assert along.norm() > 0


def test_gradients_along_the_edges_of_a_graph():
    module = randomize(steerable_block(SPECTRAL, num_heads=2).double())
    edges = torch.tensor([[i, j] for i in range(9) for j in range(i)]).T
    features, coords = torch.randn(9, module.in_type.size, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64)

    def loss(features):
        return module(module.in_type(features, coords), edge_index=edges).tensor.square().sum()

    leaf = features.clone().requires_grad_()
    assert relative(grad(loss)(features), torch.autograd.grad(loss(leaf), leaf)[0]) < 1e-10


@pytest.mark.parametrize("position", [NoPosition, RadialBias, DistanceBias, partial(RotaryEmbedding, max_distance=9.0)])
@pytest.mark.parametrize("graph", [True, False])
def test_clouds_of_their_own_positions_in_a_batch(position, graph):
    """The reach of a rotary embedding depends on values, and is its max_distance."""
    module = randomize(steerable_block(SPECTRAL, num_heads=2, position=position).double())
    edges = torch.tensor([[i, j] for i in range(9) for j in range(i)]).T if graph else None
    features = torch.randn(3, 9, module.in_type.size, dtype=torch.float64)
    coords = torch.randn(3, 9, 2, dtype=torch.float64)

    def apply(features, coords):
        return module(module.in_type(features, coords), edge_index=edges).tensor

    batched = vmap(apply)(features, coords)
    for i in range(3):
        assert relative(batched[i], apply(features[i], coords[i])) < 1e-10


@pytest.mark.parametrize("neighborhood", [Disc(1.5), KNearest(3), KNearest(20)], ids=str)
def test_neighborhoods_of_clouds_in_a_batch(neighborhood):
    """By a mask, with the ties of points on a square lattice, as positions cannot be read."""
    module = randomize(steerable_block(SPECTRAL, num_heads=2, position=RadialBias, neighborhood=neighborhood).double())
    coords = torch.tensor([[-1.0, 1], [0, 1], [1, 1], [-1, 0], [0, 0], [1, 0], [-1, -1], [0, -1], [1, -1]], dtype=torch.float64)
    features = torch.randn(3, 9, module.in_type.size, dtype=torch.float64)

    def apply(features, scale):
        return module(module.in_type(features, scale * coords)).tensor

    scales = torch.tensor([0.9, 1.0, 2.0], dtype=torch.float64)
    batched = vmap(apply)(features, scales)
    for i in range(3):
        assert relative(batched[i], apply(features[i], scales[i])) < 1e-10


def test_a_rotary_embedding_without_a_reach_names_the_cause():
    module = steerable_block(SPECTRAL, num_heads=2)
    with pytest.raises(ValueError, match="max_distance"):
        vmap(lambda coords: module(module.in_type(torch.zeros(9, module.in_type.size), coords)).tensor)(torch.randn(3, 9, 2))


def test_gradients_of_each_sample_pass_through_convolutions():
    t = field_type(planar_gspace("C4"), scalars=1, vectors=1)
    modules = [SteerableConvolution(t, t, 3), escnn.nn.R2Conv(t, t, 3, padding=1)]
    for module in modules:
        weights = {name: p.detach() for name, p in module.named_parameters()}

        def loss(weights, x, module=module):
            return functional_call(module, weights, (t(x[None]),)).tensor.square().sum()

        samples = torch.randn(3, t.size, 5, 6)
        found = vmap(grad(loss), (None, 0))(weights, samples)
        alone = [grad(loss)(weights, x) for x in samples]
        assert all(relative(found[name][i], alone[i][name]) < 1e-5 for i in range(3) for name in weights)


def test_weights_of_tokens_are_batched():
    x = torch.randn(4, SPECTRAL.size, 5, 5)
    block, weights = MODULES["block"](), torch.rand(4, 1, 5, 5)
    found = vmap(lambda x, w: block(SPECTRAL(x), quadrature_weights=w).tensor, randomness="same")(x[:, None], weights)
    assert relative(found[:, 0], block(SPECTRAL(x), quadrature_weights=weights[:, 0]).tensor) < 1e-5
