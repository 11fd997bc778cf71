"""Linear maps, norms and feed-forwards."""

import copy

import escnn.nn
import numpy as np
import pytest
import torch
from escnn.nn import FieldType

from escnn_attn import (
    BilinearFeedForward,
    FourierFeedForward,
    GatedFeedForward,
    InvariantPooling,
    IsotypicLayout,
    SteerableLinear,
    SteerableRMSNorm,
    fourier_type,
    planar_gspace,
)
from escnn_attn.fields.functions import band_limited_irreps, group_samples, synthesis_matrix
from escnn_attn.testing import equivariance_error
from tests.helpers import GROUPS, assert_every_parameter_has_gradient, cloud, mixed_type, relative, worst

LAYERS = {
    "linear": lambda t: SteerableLinear(t, t),
    "norm": SteerableRMSNorm,
    "bilinear": BilinearFeedForward,
    "gated": GatedFeedForward,
    "pooling": InvariantPooling,
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_exact_layers_are_equivariant_to_machine_precision(name, layer, domain):
    module = LAYERS[layer](mixed_type(name))
    assert worst(equivariance_error(module, domain=domain)) < 1e-12


@pytest.mark.parametrize("name", [n for n in GROUPS if n not in ("SO2", "O2")])
def test_fourier_feedforward_is_exact_for_finite_groups(name):
    assert worst(equivariance_error(FourierFeedForward(mixed_type(name)), domain="points")) < 1e-12


@pytest.mark.parametrize("name", ["SO2", "O2"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_fourier_feedforward_keeps_the_tolerance_asked(name, tolerance):
    module = FourierFeedForward(fourier_type(planar_gspace(name), 8, 3), tolerance=tolerance)
    error = worst(equivariance_error(module, domain="points"))
    assert error < 10 * tolerance
    assert error > 1e-3 * tolerance  # it aliases: a test that finds nothing tests nothing
    assert worst(equivariance_error(module, domain="grid")) < 1e-12


@pytest.mark.parametrize("layer", [SteerableRMSNorm, BilinearFeedForward, GatedFeedForward, FourierFeedForward])
@pytest.mark.parametrize("name", ["trivial", "C3", "O2"])
def test_every_parameter_is_trained(name, layer):
    field_type = mixed_type(name)
    module = layer(field_type).double()
    module(cloud(field_type)).tensor.pow(2).sum().backward()
    assert_every_parameter_has_gradient(module)


@pytest.mark.parametrize("layer", ["linear", "norm", "bilinear", "gated"])
def test_a_grid_is_the_cloud_of_its_pixels(layer):
    field_type = mixed_type("C3")
    module = LAYERS[layer](field_type).double()
    x = torch.randn(1, field_type.size, 3, 5, dtype=torch.float64)
    points = field_type(x.flatten(2)[0].T.contiguous(), torch.randn(15, 2, dtype=torch.float64))
    expected = module(field_type(x)).tensor.flatten(2)[0].T
    assert relative(module(points).tensor, expected) < 1e-13


def escnn_basis(in_type: FieldType, out_type: FieldType) -> np.ndarray:
    """Every matrix of escnn's 1×1 convolution space, as rows."""
    conv = escnn.nn.R2Conv(in_type, out_type, 1, bias=False, initialize=False)
    rows = []
    for index in range(conv.weights.numel()):
        weights = torch.zeros_like(conv.weights)
        weights[index] = 1
        rows.append(conv.basisexpansion(weights).reshape(-1).numpy())
    return np.array(rows)


def our_basis(in_type: FieldType, out_type: FieldType) -> np.ndarray:
    linear = SteerableLinear(in_type, out_type, bias=False)
    eye = in_type(torch.eye(in_type.size), torch.zeros(in_type.size, 2))
    rows = []
    with torch.no_grad():
        for weight in linear.core.weights:
            weight.zero_()
        for weight in linear.core.weights:
            for entry in range(weight.numel()):
                weight.view(-1)[entry] = 1
                rows.append(linear(eye).tensor.T.reshape(-1).numpy())
                weight.view(-1)[entry] = 0
    assert len(rows) == linear.dimension
    return np.array(rows)


def types_of(name: str) -> dict[str, FieldType]:
    gspace = planar_gspace(name)
    group = gspace.fibergroup
    if group.continuous:
        irreps = [group.irrep(*i) for i in group.bl_irreps(2)]
        return {"fourier": fourier_type(gspace, 2, 2), "irreps": FieldType(gspace, irreps)}
    quotient = group.quotient_representation((None, 2) if name == "D4" else 4)
    irreps = list(group.irreps())
    return {
        "regular": FieldType(gspace, [gspace.regular_repr] * 2),
        "irreps": FieldType(gspace, irreps),
        "quotient": FieldType(gspace, [quotient] * 2),
        "mixed": FieldType(gspace, [irreps[-1], gspace.regular_repr, quotient, irreps[1]]),
    }


@pytest.mark.parametrize("name", ["SO2", "O2", "C8", "D4"])
def test_linear_maps_are_those_of_escnns_pointwise_convolution(name):
    types = list(types_of(name).values())
    for in_type, out_type in zip(types, types[1:] + types[:1]):
        theirs, ours = escnn_basis(in_type, out_type), our_basis(in_type, out_type)
        assert len(ours) == len(theirs)
        rank = np.linalg.matrix_rank(ours, tol=1e-4)
        assert rank == len(ours)
        assert np.linalg.matrix_rank(np.concatenate([ours, theirs]), tol=1e-4) == rank


def test_linear_keeps_the_variance():
    t = fourier_type(planar_gspace("SO2"), 64, 3)
    x = t(torch.randn(1, t.size, 9, 9))
    assert SteerableLinear(t, t)(x).tensor.std().item() == pytest.approx(1, abs=0.1)


def test_a_map_to_irreps_that_the_input_lacks_is_zero():
    gspace = planar_gspace("SO2")
    linear = SteerableLinear(FieldType(gspace, [gspace.irrep(1)] * 2), FieldType(gspace, [gspace.irrep(0), gspace.irrep(2)]))
    out = linear(linear.in_type(torch.randn(1, 4, 3, 3))).tensor
    assert out.shape == (1, 3, 3, 3)
    assert out.abs().max() == 0
    assert linear.dimension == 0


def test_norm_has_unit_mean_square_and_ignores_scale():
    t = fourier_type(planar_gspace("O2"), 3, 2)
    norm, x = SteerableRMSNorm(t).double(), cloud(t)
    y = norm(x).tensor
    assert y.square().mean(1).sub(1).abs().max() < 1e-4
    assert relative(norm(t(100 * x.tensor, x.coords)).tensor, y) < 1e-5


def test_bilinear_feedforward_equals_a_naive_twin():
    """Products of functions integrated on many more samples than the layer takes."""
    t = fourier_type(planar_gspace("SO2"), 3, 2)
    group, module = t.fibergroup, BilinearFeedForward(t).double()
    x = cloud(t, points=5)
    layout = IsotypicLayout(t).double()
    A = torch.tensor(synthesis_matrix(group, band_limited_irreps(group, 2), group_samples(group, 64))) * 8
    (hidden,) = module.project_in(layout.split(x.tensor.T[None]))
    values = torch.einsum("nr,trc->tcn", A, hidden[0]) / 5**0.5
    product = values[:, : module.channels] * values[:, module.channels :]
    back = torch.einsum("nr,tcn->trc", A, product) / 64 * 5**0.5
    expected = layout.merge(module.project_out((back[None],)))[0].T
    assert relative(module(x).tensor, expected) < 1e-12


def test_fourier_feedforward_of_the_trivial_group_is_an_ordinary_one():
    t = fourier_type(planar_gspace("trivial"), 5)
    module = FourierFeedForward(t)
    x = torch.randn(2, 5, 3, 3)
    (inner,), (outer,) = module.project_in.weights, module.project_out.weights
    flat = x.permute(0, 2, 3, 1)
    hidden = torch.nn.functional.gelu(flat @ inner[0] + module.project_in.bias)
    expected = (hidden @ outer[0] + module.project_out.bias).permute(0, 3, 1, 2)
    assert relative(module(t(x)).tensor, expected) < 1e-5


def test_a_chosen_number_of_samples_states_its_aliasing():
    module = FourierFeedForward(fourier_type(planar_gspace("SO2"), 2, 3), num_samples=8)
    assert 1e-2 < module.equivariance_tolerance < 1
    module.check_equivariance(rtol=2 * module.equivariance_tolerance)
    with pytest.raises(AssertionError, match="> 1\\.00e-02"):  # no check passes above it, whatever a module states
        module.check_equivariance()
    assert FourierFeedForward(fourier_type(planar_gspace("C8"), 2)).equivariance_tolerance == 0
    with pytest.raises(ValueError, match="num_samples is for continuous groups"):
        FourierFeedForward(fourier_type(planar_gspace("C8"), 2), num_samples=4)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="more than 6 samples"):
        FourierFeedForward(fourier_type(planar_gspace("SO2"), 2, 3), num_samples=6)


@pytest.mark.parametrize("layer", [BilinearFeedForward, GatedFeedForward, FourierFeedForward])
def test_expansion_must_be_positive(layer):
    with pytest.raises(ValueError, match="expected a positive expansion"):
        layer(fourier_type(planar_gspace("C4"), 2), 0)


@pytest.mark.parametrize("layer", LAYERS)
def test_copies_are_independent_and_equal(layer):
    t = mixed_type("D3")
    module = LAYERS[layer](t)
    twin = copy.deepcopy(module)
    x = t(torch.randn(1, t.size, 3, 3))
    assert torch.equal(module(x).tensor, twin(x).tensor)
    assert twin.in_type is module.in_type
