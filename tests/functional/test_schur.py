"""Linear maps by Schur's lemma, on plain tensors."""

import pytest
import torch

from escnn_attn import IsotypicLayout
from escnn_attn.fields.types import spectral_type
from escnn_attn.functional.schur import GroupFunctions, _differentiable, isotypic_linear
from escnn_attn.nn.linear import IsotypicLinear
from tests.helpers import mixed_type, relative

GROUPS = ["trivial", "C4", "D3", "SO2", "O2"]


def maps(name: str) -> dict[str, IsotypicLinear]:
    """From features to functions, and from functions to features of other multiplicities."""
    t = mixed_type(name)
    function = IsotypicLayout(spectral_type(t.gspace, 1, 2)).irreps
    inputs, functions = IsotypicLayout(t).irreps, function.times(6)
    return {
        "to functions": IsotypicLinear(inputs, functions, functions_out=function).double(),
        "from functions": IsotypicLinear(functions, inputs, functions_in=function).double(),
        "features": IsotypicLinear(inputs, functions).double(),
    }


def arguments(module: IsotypicLinear) -> tuple:
    torch.manual_seed(1)
    torch.nn.init.normal_(module.bias)
    tensors = module.plan.source.empty(torch.empty(0, dtype=torch.float64), (2, 5))
    return tuple(torch.randn_like(x).requires_grad_() for x in tensors), list(module.weights), module.bias


@pytest.mark.parametrize("kind", ["to functions", "from functions", "features"])
@pytest.mark.parametrize("name", GROUPS)
def test_products_written_in_place_equal_those_of_autograd(name, kind):
    module = maps(name)[kind]
    tensors, weights, bias = arguments(module)
    found = isotypic_linear(module.plan, tensors, weights, bias)
    expected = _differentiable(module.plan, bias, *tensors, *weights)
    grads = [torch.randn_like(x) for x in expected]
    inputs = (*tensors, *weights, bias)
    by_found, by_expected = (torch.autograd.grad(outputs, inputs, grads, allow_unused=True) for outputs in (found, expected))
    for a, b in zip((*found, *by_found), (*expected, *by_expected), strict=True):
        assert (a is None or not a.any()) if b is None else relative(a, b) < 1e-12


@pytest.mark.parametrize("name", ["C4", "O2"])
def test_functions_are_features_in_another_layout(name):
    """Coefficients of a function are its irreps' copies, one after the other, each with its components in a row."""
    module = maps(name)["to functions"]
    tensors, weights, bias = arguments(module)
    (functions,) = isotypic_linear(module.plan, tensors, weights, bias)
    copies = module.plan.target.function.multiplicities
    features = maps(name)["features"]
    separate = isotypic_linear(features.plan, tensors, weights, bias)
    rows = [f[..., j * 6 : (j + 1) * 6] for f, n in zip(separate, copies, strict=True) for j in range(n)]
    assert relative(functions, torch.cat(rows).permute(1, 2, 0, 3)) < 1e-12
    assert isinstance(module.plan.target, GroupFunctions)
    assert not isinstance(features.plan.target, GroupFunctions)


def test_gradients_of_gradients():
    module = maps("SO2")["to functions"]
    tensors, weights, bias = arguments(module)
    assert torch.autograd.gradgradcheck(
        lambda *inputs: isotypic_linear(module.plan, inputs[: len(tensors)], inputs[len(tensors) : -1], inputs[-1]),
        (*tensors, *weights, bias),
        fast_mode=True,
    )


def test_maps_on_samples_and_norms_have_second_derivatives():
    from escnn_attn.functional import GELU, PRODUCT, pointwise, rms_norm

    def double(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    synthesis = torch.randn(4, 3, dtype=torch.float64)
    inputs = (double(2, 5, 3, 2),)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        for activation in (GELU, PRODUCT):
            assert check(lambda x, activation=activation: pointwise(x, synthesis, synthesis.mT, activation), inputs)
        norm = (double(1, 2, 3, 4), double(2, 2, 3, 5), double(4), double(5))
        assert check(lambda *x: rms_norm(x[:2], x[2:], 1e-6), norm)


def test_an_empty_batch():
    module = maps("SO2")["to functions"]
    tensors = module.plan.source.empty(torch.empty(0, dtype=torch.float64), (0, 5))
    assert module(tensors)[0].shape[0] == 0
