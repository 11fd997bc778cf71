"""U-Nets of steerable convolutions."""

import copy
from functools import cache

import escnn.nn
import pytest
import torch

from escnn_attn import SteerableRMSNorm, SteerableUNet
from escnn_attn.testing import assert_equivariant, lattice_elements, transform
from tests.helpers import assert_every_parameter_has_gradient, randomize, relative

FIELDS = {"scalars": 1, "vectors": 1, "pseudoscalars": 1}


@cache
def unet(group: str, periodic: bool = True, depth: int = 1, norm=None) -> SteerableUNet:
    """A small network in eval mode, with batch norms that saw fields, and no zero biases; tests change copies alone."""
    options = {"max_frequency": 1} if group in ("SO2", "O2") else {}
    out_fields = {"vectors": 1, "pseudoscalars": 1}
    torch.manual_seed(0)
    model = SteerableUNet(
        group, in_type=FIELDS, out_fields=out_fields, channels=2, depth=depth, periodic=periodic, norm=norm, **options
    )
    with torch.no_grad():
        randomize(model)(torch.randn(3, 4, 16, 16))
    return model.eval()


@pytest.mark.parametrize(("group", "periodic"), [("O2", True), ("D4", True), ("SO2", False)])
def test_outputs_turn_and_flip_with_inputs_in_float32(group, periodic):
    model = unet(group, periodic)
    x = model.in_type(torch.randn(2, 4, 16, 16))
    elements = lattice_elements(x.type.gspace)
    assert len(elements) == {"SO2": 4, "O2": 8, "D4": 8}[group]
    reference = model(x)
    for g in elements:
        assert relative(model(transform(x, g)).tensor, transform(reference, g).tensor) < 1e-5


def test_the_plain_one_is_not_equivariant_to_turns():
    model, x = unet("trivial"), torch.randn(1, 4, 16, 16)
    assert relative(model(x.rot90(1, (2, 3))).tensor, model(x).tensor.rot90(1, (2, 3))) > 0.1


@pytest.mark.parametrize("group", ["trivial", "O2", "D4"])
def test_periodic_outputs_shift_with_inputs_by_multiples_of_the_stride(group):
    x, model = torch.randn(2, 4, 16, 24), unet(group)
    for shift, exact in (((4, -6), True), ((1, 0), False)):
        error = relative(model(x.roll(shift, (2, 3))).tensor, model(x).tensor.roll(shift, (2, 3)))
        assert error < 1e-5 if exact else error > 1e-3


def test_outputs_do_not_shift_where_borders_do_not_meet():
    x, model = torch.randn(2, 4, 16, 24), unet("SO2", periodic=False)
    assert relative(model(x.roll(4, 2)).tensor, model(x).tensor.roll(4, 2)) > 1e-3


@pytest.mark.slow
def test_its_own_check_passes_and_sees_an_odd_kernel_of_a_stride():
    model = copy.deepcopy(unet("D4"))
    assert len({element for element, _ in model.check_equivariance()}) == 8
    t = model.halvings[0].in_type
    model.halvings[0] = escnn.nn.R2Conv(t, model.halvings[0].out_type, 3, stride=2, padding=1, padding_mode="circular")
    with pytest.raises(AssertionError, match="SteerableUNet is not equivariant"):
        assert_equivariant(model.eval(), domain="grid", size=16)


@pytest.mark.parametrize("group", ["trivial", "O2", "D4"])
def test_every_parameter_has_a_gradient(group):
    model = copy.deepcopy(unet(group)).train()
    model(torch.randn(2, 4, 16, 16)).tensor.pow(2).sum().backward()
    assert_every_parameter_has_gradient(model)


def test_another_norm_is_taken():
    model = unet("trivial", norm=SteerableRMSNorm)
    assert sum(isinstance(part, SteerableRMSNorm) for part in model.modules()) == 6
    assert not any("Norm" in type(part).__name__ for part in model.modules() if not isinstance(part, SteerableRMSNorm))


def test_blocks_add_to_their_input():
    block = copy.deepcopy(unet("trivial").blocks_down[0])
    x = block.in_type(torch.randn(2, block.in_type.size, 8, 8))
    assert relative(block(x).tensor, x.tensor) > 0.1
    with torch.no_grad():
        for parameter in block[5].parameters():
            parameter.zero_()
    assert torch.equal(block(x).tensor, x.tensor)


def test_every_level_sees_further():
    """The pixels on which an output depends: more with each halving, and across the border."""
    seen = []
    for depth in (0, 1, 2):
        x = torch.randn(1, 4, 32, 32, requires_grad=True)
        unet("trivial", depth=depth)(x).tensor[0, 0, 0, 0].backward()
        seen.append(int((x.grad.abs().sum(dim=1)[0, :, 0] > 1e-9).sum()))
        assert x.grad[0, :, -1, -1].abs().sum() > 0
    assert seen[0] < seen[1] < seen[2] <= 32


@pytest.mark.parametrize("mode", [True, False])
def test_copies_and_state_in_either_mode(mode):
    model, x = copy.deepcopy(unet("D4")).train(mode), torch.randn(1, 4, 16, 16)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x).tensor, model(x).tensor)
    other = randomize(copy.deepcopy(model)).train(not mode)
    assert not torch.equal(other.eval()(x).tensor, model.eval()(x).tensor)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x).tensor, model.eval()(x).tensor)


def test_bad_arguments_and_grids_are_refused():
    model = unet("D4")
    with pytest.raises(ValueError, match=r"multiples of 2, for 1 halvings, got a tensor \(1, 4, 16, 17\)"):
        model(torch.randn(1, 4, 16, 17))
    with pytest.raises(ValueError, match=r"expected fields \(b, 4, height, width\).*got a tensor \(1, 3, 16, 16\)"):
        model(torch.randn(1, 3, 16, 16))
    with pytest.raises(TypeError, match="the dtype of the SteerableUNet"):
        model(torch.randn(1, 4, 16, 16).double())
    with pytest.raises(ValueError, match="max_frequency is for continuous groups: leave it out for D4, got 2"):
        SteerableUNet("D4", max_frequency=2)
    with pytest.raises(TypeError, match="periodic must be True or False, got 1"):
        SteerableUNet("D4", periodic=1)
    with pytest.raises(TypeError, match="expected norm to be a EquivariantModule class"):
        SteerableUNet("D4", norm=escnn.nn.IdentityModule(model.in_type))
