"""The norm of fields over a batch: that of escnn, without its waits for the device."""

import escnn.nn
import numpy as np
import pytest
import torch
from escnn.group import change_basis
from escnn.nn import FieldType

from escnn_attn import SteerableBatchNorm, field_type, fourier_type, planar_gspace
from escnn_attn.fields import require_planar
from escnn_attn.testing import equivariance_error
from tests.helpers import GROUPS, assert_every_parameter_has_gradient, mixed_type, randomize, relative, worst


def norm_of(t) -> SteerableBatchNorm:
    """A norm that has seen batches."""
    norm = randomize(SteerableBatchNorm(t).double())
    for _ in range(3):
        norm(t(1 + 2 * torch.randn(4, t.size, 5, 5, dtype=torch.float64)))
    return norm


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("training", [True, False])
def test_equivariant(name, training):
    norm = norm_of(mixed_type(name)).train(training)
    assert worst(equivariance_error(norm, domain="grid")) < 1e-12
    assert worst(equivariance_error(norm, domain="points")) < 1e-12


@pytest.mark.parametrize(
    "t", [fourier_type(planar_gspace("SO2"), 3, 2), fourier_type(planar_gspace("D4"), 3)], ids=["SO2", "D4"]
)
@pytest.mark.parametrize("training", [True, False])
def test_the_result_of_escnn(t, training):
    ours, theirs = SteerableBatchNorm(t), escnn.nn.IIDBatchNorm2d(t)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    weight, bias = (part.detach() for part in theirs.parameters())
    ours.load_state_dict({**ours.state_dict(), "weight": weight.flatten(), "bias": bias.flatten()})
    x = torch.randn(64, t.size, 9, 9)
    x = (
        x - x.mean(dim=(0, 2, 3), keepdim=True) + ours.invariants.value.sum(dim=1)[:, None, None]
    )  # escnn's variance depends on other means
    for _ in range(2):
        found, wanted = ours(t(x)).tensor, theirs(t(x)).tensor
    if not training:
        found, wanted = ours.eval()(t(x)).tensor, theirs.eval()(t(x)).tensor
    assert relative(found, wanted) < 2e-4  # that of escnn divides by n - 1
    gradients = [
        torch.autograd.grad(out.square().sum(), parameter)[0]
        for out, parameter in ((found, ours.weight), (wanted, weight_of(theirs)))
    ]
    assert relative(gradients[0], gradients[1].flatten()) < 1e-3


def weight_of(norm: escnn.nn.IIDBatchNorm2d) -> torch.Tensor:
    return next(parameter for name, parameter in norm.named_parameters() if name.endswith("weight"))


def test_samples_that_turn_on_their_own_have_the_same_statistics():
    t = field_type(planar_gspace("SO2"), scalars=1, vectors=2)
    x, turn = 1 + torch.randn(2, t.size, 5, 5, dtype=torch.float64), list(require_planar(t).fibergroup.testing_elements())[3]
    turned = torch.stack([x[0], t(x[1:]).transform_fibers(turn).tensor[0]])
    first, second = (SteerableBatchNorm(t).double() for _ in range(2))
    first(t(x)), second(t(turned))
    assert relative(second.running_var, first.running_var) < 1e-12
    assert relative(second.running_mean, first.running_mean) < 1e-12


def test_training_normalizes_and_eval_takes_the_averages():
    t = fourier_type(planar_gspace("O2"), 4, 2)
    norm, x = SteerableBatchNorm(t, momentum=1.0).double(), 5 + 3 * torch.randn(8, t.size, 6, 6, dtype=torch.float64)
    out = norm(t(x)).tensor
    fields = out.unflatten(1, (len(t), -1))
    assert torch.allclose(fields.square().mean(dim=(0, 2, 3, 4)), torch.ones(len(t), dtype=torch.float64), atol=1e-4)
    assert (out.mean(dim=(0, 2, 3)) @ norm.invariants.like(out)).abs().max() < 1e-12
    assert torch.equal(norm.eval()(t(x)).tensor, out)
    assert relative(norm(t(x[:1])).tensor, out[:1]) < 1e-12  # each sample on its own
    (norm.train()(t(x)).tensor * torch.randn_like(x)).sum().backward()
    assert_every_parameter_has_gradient(norm)


def test_bases_that_are_not_orthogonal_give_the_same_fields():
    gspace = planar_gspace("C4")
    shear = np.eye(4) + 0.3 * np.triu(np.ones((4, 4)), 1)
    skewed = FieldType(gspace, [change_basis(gspace.regular_repr, shear, name="skewed")] * 2)
    plain, x = fourier_type(gspace, 2), 1 + torch.randn(3, 8, 5, 5, dtype=torch.float64)
    change = torch.block_diag(*[torch.from_numpy(shear)] * 2)
    found = SteerableBatchNorm(skewed).double()(skewed(torch.einsum("ij,bjyx->biyx", change, x))).tensor
    assert relative(found, torch.einsum("ij,bjyx->biyx", change, SteerableBatchNorm(plain).double()(plain(x)).tensor)) < 1e-12


def test_one_value_is_no_error_and_finite():
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    assert SteerableBatchNorm(t)(t(torch.randn(1, t.size, 1, 1))).tensor.isfinite().all()


def test_an_empty_batch_leaves_the_averages():
    norm = norm_of(fourier_type(planar_gspace("SO2"), 2, 1))
    before = norm.running_mean.clone(), norm.running_var.clone()
    assert norm(norm.in_type(torch.zeros(0, norm.in_type.size, 5, 5, dtype=torch.float64))).tensor.shape == (0, 6, 5, 5)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])


def test_statistics_are_those_of_single_precision_under_autocast():
    t = field_type(planar_gspace("SO2"), scalars=1)
    norm, x = SteerableBatchNorm(t), t(100.3 + torch.randn(4, 1, 9, 9))
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x).tensor
    assert out.mean().abs() < 1e-4
    assert norm.running_mean.item() == pytest.approx(0.1 * x.tensor.mean().item(), rel=1e-5)
