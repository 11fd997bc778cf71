"""Derivatives beyond the first, in batches, forward and under checkpointing: hand-written gradients must not be noticed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from escnn_attn import (
    Disc,
    FourierFeedForward,
    FourierGELU,
    GatedFeedForward,
    RadialBias,
    SteerableBatchNorm,
    SteerableLinear,
    SteerableRMSNorm,
    SteerableSelfAttention,
    TokenModule,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from tests.helpers import randomize, relative

TYPE = fourier_type(planar_gspace("SO2"), 2, 1)
LAYERS: dict[str, Callable[[], TokenModule | FourierGELU]] = {
    "linear": lambda: SteerableLinear(TYPE, TYPE),
    "norm": lambda: SteerableRMSNorm(TYPE),
    "batch norm": lambda: SteerableBatchNorm(TYPE).eval(),  # those of training have no gradient of the statistics
    "gated": lambda: GatedFeedForward(TYPE),
    "samples": lambda: FourierFeedForward(TYPE),
    "nonlinearity": lambda: FourierGELU(TYPE),
    "attention": lambda: SteerableSelfAttention(TYPE, num_heads=1),
    "block": lambda: steerable_block(TYPE, num_heads=1),
    "block of discs": lambda: steerable_block(TYPE, num_heads=1, neighborhood=Disc(1.5)),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),  # which torch's own forward mode uses
]


def layer_on_grid(name: str) -> tuple[torch.nn.Module, Callable[[Tensor], Tensor], Tensor]:
    layer = randomize(LAYERS[name]().double())
    x = torch.randn(1, TYPE.size, 3, 3, dtype=torch.float64, requires_grad=True)
    return layer, lambda x: layer(TYPE(x)).tensor, x


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_gives_the_plain_gradients(name, use_reentrant):
    layer, call, x = layer_on_grid(name)
    plain = torch.autograd.grad(call(x).square().sum(), [x, *layer.parameters()])
    layer.zero_grad()
    checkpoint(call, x, use_reentrant=use_reentrant).square().sum().backward()
    for found, wanted in zip([x.grad, *(p.grad for p in layer.parameters())], plain, strict=True):
        assert relative(found, wanted) < 1e-12


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("frozen", ["nothing", "parameters", "features"])
def test_second_derivatives_are_those_of_differences(name, frozen):
    layer, call, x = layer_on_grid(name)
    layer.requires_grad_(frozen != "parameters")
    weight = torch.randn_like(call(x))
    inputs: list[Tensor] = [p for p in layer.parameters() if p.requires_grad] + ([x] if frozen != "features" else [])
    x.requires_grad_(frozen != "features")
    if not inputs:
        pytest.skip("the layer has no parameters")

    def gradients(create_graph: bool) -> tuple[Tensor, ...]:
        # a square, so that the second derivative of a linear map is not zero
        return torch.autograd.grad((call(x) * weight).sum().square(), inputs, create_graph=create_graph)

    directions = [torch.randn_like(i) for i in inputs]
    slope = sum((g * d).sum() for g, d in zip(gradients(create_graph=True), directions, strict=True))
    found = torch.autograd.grad(slope, inputs)
    step, ahead = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            [i.add_(sign * step * d) for i, d in zip(inputs, directions, strict=True)]
        ahead.append(gradients(create_graph=False))
        with torch.no_grad():
            [i.sub_(sign * step * d) for i, d in zip(inputs, directions, strict=True)]
    for one, plus, minus in zip(found, *ahead, strict=True):
        torch.testing.assert_close(one, (plus - minus) / (2 * step), rtol=1e-6, atol=1e-6 * float(plus.abs().max()))


@pytest.mark.parametrize("name", LAYERS)
def test_batched_gradients_are_those_one_by_one(name):
    _, call, x = layer_on_grid(name)
    out = call(x)
    directions = torch.randn(3, *out.shape, dtype=torch.float64)
    (batched,) = torch.autograd.grad(out, x, directions, is_grads_batched=True, retain_graph=True)
    for direction, found in zip(directions, batched, strict=True):
        assert relative(found, torch.autograd.grad(out, x, direction, retain_graph=True)[0]) < 1e-10
    jacobian = torch.autograd.functional.jacobian(call, x, vectorize=True)
    assert relative(torch.einsum("kbcyx,bcyxBCYX->kBCYX", directions, jacobian), batched) < 1e-10


@pytest.mark.parametrize("name", LAYERS)
def test_forward_mode_agrees_with_reverse_mode(name):
    """torch's fused attention has no forward mode, so it is spelled out."""
    _, call, x = layer_on_grid(name)
    direction, upstream = torch.randn_like(x), torch.randn_like(call(x))
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        _, along = forward_ad.unpack_dual(call(forward_ad.make_dual(x, direction)))
    (back,) = torch.autograd.grad(call(x), x, upstream)
    assert relative((along * upstream).sum(), (direction * back).sum()) < 1e-10


@pytest.mark.parametrize("neighborhood", [None, Disc(4.0), Disc(1.5)])
def test_second_derivatives_of_radial_biases_by_positions(neighborhood):
    layer = randomize(SteerableSelfAttention(TYPE, num_heads=1, position=RadialBias, neighborhood=neighborhood).double())
    x, coords = (torch.randn(5, n, dtype=torch.float64) for n in (TYPE.size, 2))
    assert torch.autograd.gradgradcheck(lambda c: layer(TYPE(x, c)).tensor, coords.requires_grad_())
