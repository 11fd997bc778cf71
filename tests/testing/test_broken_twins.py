"""Modules that are wrong in one way each: the checker catches all of them, with no arguments but the module."""

import escnn.nn
import pytest
import torch
from escnn.nn import FieldType, GeometricTensor
from torch import nn

from escnn_attn import SequentialModule, SteerableLinear, field_type, fourier_type, planar_gspace, steerable_block
from escnn_attn.testing import assert_equivariant

TYPE = fourier_type(planar_gspace("SO2"), 4, 2)
MIXED = field_type(planar_gspace("SO2"), scalars=3, vectors=2)


class Twin(nn.Module):
    """A module that maps geometric tensors to tensors by a function of itself and its input."""

    def __init__(self, change, in_type=TYPE, out_type=None):
        super().__init__()
        self.change, self.in_type, self.out_type = change, in_type, out_type or in_type

    def forward(self, x):
        return GeometricTensor(self.change(self, x), self.in_type, x.coords)


def relu_if(condition):
    return lambda module, x: x.tensor.relu() if condition(module, x) else x.tensor


def broken_on(tokens):
    """Broken where `tokens` of positions (points, 2) about their mean is true; grids are left alone."""

    def change(_, x):
        if x.coords is None:
            return x.tensor
        return torch.where(tokens(x.coords - x.coords.mean(0))[:, None], x.tensor.relu(), x.tensor)

    return change


def small_field(_, x):
    scalars, vectors = x.tensor.split([3, 4], dim=1)
    return torch.cat([1e13 * scalars, vectors.relu()], dim=1)


def small_token(_, x):
    length = x.tensor.norm(dim=1, keepdim=True)
    return torch.where(length > length.quantile(0.9), 1e13 * x.tensor, x.tensor.relu())


def wipe(_, x):
    out = x.tensor.clone()
    x.tensor.zero_()
    return out


def scale_points(_, x):
    return x.tensor if x.coords is None else x.tensor * torch.exp(-x.coords.square().sum(1, keepdim=True) / 9)


def number_points(_, x):
    return x.tensor if x.coords is None else x.tensor * torch.arange(1, len(x.tensor) + 1).to(x.tensor)[:, None]


def on_grid(condition):
    return relu_if(lambda _, x: x.coords is None and condition(*x.tensor.shape[2:]))


TWINS = {
    "a small field beside large ones": Twin(small_field, MIXED),
    "small tokens beside large ones": Twin(small_token, MIXED),
    "an input that is wiped": Twin(wipe),
    "an absolute position": Twin(scale_points),
    "the order of points": Twin(number_points),
    "train mode": Twin(relu_if(lambda module, _: module.training)),
    "train mode of images": Twin(relu_if(lambda module, x: module.training and x.coords is None)),
    "dropout of components": Twin(lambda module, x: nn.functional.dropout(x.tensor, training=module.training)),
    "float32": Twin(relu_if(lambda _, x: x.tensor.dtype == torch.float32)),
    "points farther than 3": Twin(broken_on(lambda x: x.norm(dim=1) > 5)),
    "an even side": Twin(on_grid(lambda height, _: height % 2 == 0)),
    "sides other than 11": Twin(on_grid(lambda height, width: height != 11 and height == width)),
    "a rectangle": Twin(on_grid(lambda height, width: height != width)),
    "another type than it says": Twin(lambda _, x: x.tensor, MIXED, field_type(MIXED.gspace, scalars=7)),
    "points alone": Twin(relu_if(lambda _, x: x.coords is not None)),
    "grids alone": Twin(relu_if(lambda _, x: x.coords is None)),
}

SAID = {
    "an input that is wiped": "Twin changes its input in place",
    "an absolute position": "Twin is not equivariant to translations",
    "the order of points": "Twin depends on the order of points",
    "another type than it says": "Twin has the out_type",
}


@pytest.mark.parametrize("name", TWINS)
def test_a_broken_twin_is_caught(name):
    assert_equivariant(Twin(lambda _, x: x.tensor, MIXED))
    with pytest.raises(AssertionError, match=SAID.get(name, "Twin is not equivariant: relative error")):
        assert_equivariant(TWINS[name])


class Moved(Twin):
    def forward(self, x):
        if x.coords is None:
            return x
        return GeometricTensor(x.tensor, self.in_type, x.coords + torch.tensor([0.1, 0.0]).to(x.coords))


def test_wrong_positions_of_the_output_are_caught():
    with pytest.raises(AssertionError, match="Moved is not equivariant"):
        assert_equivariant(Moved(None))


class Directed(nn.Module):
    """A default block with a preferred direction."""

    def __init__(self, strength):
        super().__init__()
        self.block, self.strength = steerable_block(TYPE, num_heads=2), strength
        self.in_type = self.out_type = TYPE

    def forward(self, x):
        x = self.block(x)
        direction = torch.zeros_like(x.tensor)
        direction[:, 1] = self.strength
        return GeometricTensor(x.tensor + direction, x.type, x.coords)


@pytest.mark.parametrize("domain", ["points", "grid"])
@pytest.mark.parametrize("strength", [0.02, 1e-4])
def test_a_small_preferred_direction_is_caught(domain, strength):
    assert_equivariant(Directed(0.0), domain=domain)
    with pytest.raises(AssertionError, match="Directed is not equivariant"):
        assert_equivariant(Directed(strength), domain=domain)


@pytest.mark.parametrize("group", ["C3", "C5", "C7", "C9"])
def test_groups_without_a_rotation_of_the_pixels_are_tested_on_points(group):
    t = fourier_type(planar_gspace(group), 2, 1)
    with pytest.raises(AssertionError, match="Twin is not equivariant"):
        assert_equivariant(Twin(lambda _, x: x.tensor.relu(), t))
    with pytest.raises(AssertionError, match="pixels to pixels is the identity"):
        assert_equivariant(escnn.nn.R2Conv(t, t, 3, padding=1))
    chain = SequentialModule(SteerableLinear(t, t), Broken(t))
    with pytest.raises(AssertionError, match="not equivariant"):
        chain.check_equivariance()


class Broken(escnn.nn.EquivariantModule):
    """A module of another library than ours."""

    def __init__(self, field_type: FieldType):
        super().__init__()
        self.in_type = self.out_type = field_type

    def forward(self, x):
        return GeometricTensor(x.tensor.relu(), x.type, x.coords)

    def evaluate_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("domain", ["image", None, 3])
def test_other_domains_are_refused(domain):
    with pytest.raises((TypeError, ValueError), match="domain"):
        assert_equivariant(SteerableLinear(TYPE, TYPE), domain=domain)


def test_no_tolerance_is_that_of_the_dtype():
    assert_equivariant(SteerableLinear(TYPE, TYPE), tolerance=None)
    for tolerance in (float("nan"), float("inf"), 0.0, "1"):
        with pytest.raises((TypeError, ValueError), match="tolerance"):
            assert_equivariant(SteerableLinear(TYPE, TYPE), tolerance=tolerance)


REGULAR = fourier_type(planar_gspace("D4"), 2)
SOUND = [
    escnn.nn.R2Conv(REGULAR, REGULAR, 3, stride=2, padding=1),
    escnn.nn.R2ConvTransposed(REGULAR, REGULAR, 3, stride=2, padding=1),
    escnn.nn.InnerBatchNorm(REGULAR),
    escnn.nn.IIDBatchNorm2d(TYPE),
    escnn.nn.FieldDropout(REGULAR),
    escnn.nn.PointwiseDropout(REGULAR),
    escnn.nn.PointwiseMaxPool(REGULAR, 2),
    escnn.nn.PointwiseAvgPool(REGULAR, 2),
    escnn.nn.PointwiseAvgPoolAntialiased(REGULAR, 0.66, 2),
    escnn.nn.R2Upsampling(REGULAR, 2),
    escnn.nn.GroupPooling(REGULAR),
]


@pytest.mark.parametrize("module", SOUND, ids=lambda module: type(module).__name__)
def test_sound_modules_of_escnn_pass(module):
    """On domains that they take, on sides that keep the rotation center, and with random numbers for each pixel in train mode."""
    assert len(assert_equivariant(module)) >= 4


def image_chain():
    hidden = fourier_type(planar_gspace("C4"), 2)
    image = field_type(planar_gspace("C4"), scalars=1)
    return SequentialModule(
        escnn.nn.R2Conv(image, hidden, 3, padding=1), escnn.nn.ReLU(hidden), escnn.nn.PointwiseMaxPool(hidden, 2)
    )


def test_a_pooled_chain_passes_its_own_check():
    """Pooling by two keeps the rotation center of even sides alone."""
    assert len(image_chain().check_equivariance()) >= 4
    assert_equivariant(image_chain(), tolerance=1e-5)


def test_elements_may_be_given_once_and_for_both_domains():
    g = TYPE.fibergroup.element(0.3)
    identity = TYPE.fibergroup.identity
    assert {h for h, _ in assert_equivariant(SteerableLinear(TYPE, TYPE), elements=iter([identity, g]))} == {identity, g}
    with pytest.raises(ValueError, match="does not map the pixels"):
        assert_equivariant(SteerableLinear(TYPE, TYPE), elements=[g], domain="grid")


def test_a_tolerance_holds_in_every_setting_of_its_dtype():
    """A preferred direction of 1e-11 in eval mode, on even sides alone, or in train mode."""
    for condition in (lambda module, x: x.coords is None and x.tensor.shape[2] % 2 == 0, lambda module, _: module.training):
        twin = Twin(lambda module, x, when=condition: x.tensor + 1e-11 * when(module, x))
        assert_equivariant(twin)
        with pytest.raises(AssertionError, match="not equivariant"):
            assert_equivariant(twin, tolerance=1e-13)
