"""GELU on samples of functions on the group."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from escnn.nn import FieldType

from escnn_attn import FourierGELU, fourier_type, planar_gspace, testing
from tests.helpers import cloud, relative, worst

TYPES = [("SO2", 3, 2), ("O2", 2, 3), ("C8", 3, 2)]


@pytest.mark.parametrize(("name", "channels", "limit"), TYPES)
def test_equals_a_naive_twin(name, channels, limit):
    """Each function is evaluated at one group element at a time, through the representation of that element."""
    t = fourier_type(planar_gspace(name), channels, limit)
    module, group, x = FourierGELU(t).double(), t.fibergroup, cloud(t, points=5)
    rho = t.representations[0]
    # the function that a coefficient vector stands for has, at g, the value of its turned self at the identity
    at_identity = (
        module.matrix.value.double()[list(_samples(module, group)).index(group.identity)] * module.matrix.value.shape[0] ** 0.5
    )
    fields = x.tensor.unflatten(1, (channels, -1))
    out = torch.zeros_like(fields)
    for g in _samples(module, group):
        row = torch.tensor(rho(~g)).T @ at_identity
        out += F.gelu(fields @ row / rho.size**0.5)[..., None] * row
    expected = out.flatten(1) / module.matrix.value.shape[0] * rho.size**0.5
    assert relative(module(x).tensor, expected) < 1e-12


def _samples(module: FourierGELU, group) -> list:
    count = module.matrix.value.shape[0]
    if not group.continuous:
        return list(group.elements)
    return list(group.grid(type="regular", N=count // (2 if group.name == "O(2)" else 1)))


@pytest.mark.parametrize(("name", "channels", "limit"), TYPES)
def test_is_as_equivariant_as_it_states(name, channels, limit):
    module = FourierGELU(fourier_type(planar_gspace(name), channels, limit))
    module.check_equivariance(rtol=max(1e-9, 4 * module.equivariance_tolerance))
    finer = FourierGELU(module.in_type, num_samples=96 if module.in_type.fibergroup.continuous else None)
    assert worst(testing.equivariance_error(finer, domain="points")) < 1e-10


def test_a_broken_one_is_caught():
    module = FourierGELU(fourier_type(planar_gspace("SO2"), 2, 2)).double()
    module.matrix._exact[0] *= 2
    with pytest.raises(AssertionError):
        testing.assert_equivariant(module, domain="points", tolerance=1e-2)


def test_grids_points_and_plain_tensors_agree():
    t = fourier_type(planar_gspace("O2"), 3, 1)
    module, pixels = FourierGELU(t).double(), torch.randn(2, t.size, 3, 5, dtype=torch.float64)
    on_grid = module(t(pixels)).tensor
    on_points = module(t(pixels.permute(0, 2, 3, 1).flatten(0, 2), torch.randn(30, 2, dtype=torch.float64))).tensor
    assert relative(on_points.view(2, 3, 5, t.size).permute(0, 3, 1, 2), on_grid) < 1e-12
    exported = pickle.loads(pickle.dumps(module.export()))
    assert relative(exported(pixels), on_grid) < 1e-12
    assert module.evaluate_output_shape((2, t.size, 3, 5)) == on_grid.shape


def test_gradients():
    module = FourierGELU(fourier_type(planar_gspace("SO2"), 2, 1)).double()
    x = torch.randn(2, 6, 3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module.forward_grid, x)


def test_bad_input():
    so2, t = planar_gspace("SO2"), fourier_type(planar_gspace("SO2"), 2, 2)
    with pytest.raises(ValueError, match="expected copies of one spectral representation"):
        FourierGELU(FieldType(so2, [so2.trivial_repr, *t.representations]))
    with pytest.raises(ValueError, match="needs more than 4 samples, got 4"):
        FourierGELU(t, num_samples=4)
    with pytest.raises(TypeError, match="expected"):
        FourierGELU(t)(fourier_type(so2, 3, 2)(torch.randn(1, 15, 3, 3)))
    with pytest.raises(ValueError, match="expected a shape"):
        FourierGELU(t).evaluate_output_shape((1, 7, 3, 3))
