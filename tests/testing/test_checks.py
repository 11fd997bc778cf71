"""The checker catches a broken twin of each module."""

from dataclasses import replace
from functools import partial

import escnn.nn
import numpy as np
import pytest
import torch
from escnn.nn import EquivariantModule, FieldType

from escnn_attn import (
    BilinearFeedForward,
    DistanceBias,
    FourierFeedForward,
    GatedFeedForward,
    InvariantPooling,
    SteerableBatchNorm,
    SteerableConvolution,
    SteerableLinear,
    SteerablePointTransformer,
    SteerableRMSNorm,
    SteerableSelfAttention,
    SteerableTransformer,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.testing import assert_equivariant, equivariance_error, lattice_elements, transform
from escnn_attn.testing.errors import field_error
from tests.helpers import cloud, relative, small_model

TYPE = fourier_type(planar_gspace("SO2"), 4, 2)


def spoil_constant(constant):
    """Rounds a table to one digit."""
    constant._exact = np.round(constant._exact * 10) / 10 + 0.01


def break_linear(linear):
    """Maps frequency 1 to frequency 2 and the other way round."""
    linear = getattr(linear, "core", linear)
    first, (a, b), (c, d) = linear.plan.pairs
    linear.plan = replace(linear.plan, pairs=(first, (a, d), (c, b)))


def break_norm(norm):
    """Normalizes components, not copies."""
    norm.forward_tokens = lambda tokens: tokens.with_features(tuple(f / (1 + f.abs()) for f in tokens.features))


def break_batch_norm(norm):
    """Scales components, not fields."""
    norm.field._exact = np.arange(TYPE.size) % len(TYPE)
    norm.weight.data = 1 + torch.rand(len(TYPE))
    norm.to(torch.float32)


def break_attention(attention):
    """Samples the group for far shorter distances than those at hand."""
    attention.position.wavenumbers = [6.0] * len(attention.position.wavenumbers)
    attention.position.sample_counts = lambda *_: [8] * len(attention.position.wavenumbers)


def break_pooling(pooling):
    irreps = pooling.in_layout.irreps  # the first component instead of the norm
    pooling.in_layout.irreps = replace(irreps, trivial=(True,) * len(irreps.trivial))


BROKEN = {
    "linear": (lambda: SteerableLinear(TYPE, TYPE), break_linear),
    "norm": (lambda: SteerableRMSNorm(TYPE), break_norm),
    "batch norm": (lambda: SteerableBatchNorm(TYPE).eval(), break_batch_norm),
    "attention": (lambda: SteerableSelfAttention(TYPE, num_heads=2), break_attention),
    "attention out": (lambda: SteerableSelfAttention(TYPE, num_heads=2), lambda m: break_linear(m.project_out)),
    "bilinear": (lambda: BilinearFeedForward(TYPE), lambda m: spoil_constant(m.matrix)),
    "gated": (lambda: GatedFeedForward(TYPE), lambda m: break_linear(m.project_in)),
    "fourier": (lambda: FourierFeedForward(TYPE), lambda m: spoil_constant(m.matrix)),
    "pooling": (lambda: InvariantPooling(TYPE), break_pooling),
    "block": (lambda: steerable_block(TYPE, num_heads=2), lambda m: break_linear(m.feedforward.project_out)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_twin_is_caught(name):
    build, spoil = BROKEN[name]
    module = build()
    assert_equivariant(module, domain="points")
    module.check_equivariance()
    spoil(module)
    with pytest.raises(AssertionError, match="is not equivariant: relative error"):
        assert_equivariant(module, domain="points")
    with pytest.raises(AssertionError, match="is not equivariant: relative error"):
        module.check_equivariance()


def test_a_network_with_a_broken_convolution_is_caught():
    model = SteerableTransformer("SO2", channels=2, max_frequency=1, depth=1)
    assert_equivariant(model, dtype=torch.float32, size=29)
    convolution = next(module for module in model.modules() if isinstance(module, SteerableConvolution))
    filters, bias = convolution.kernel(0)
    convolution.kernel = lambda number: (torch.randn_like(filters), bias)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(model, dtype=torch.float32, size=29)


@pytest.mark.parametrize("mode", [True, False])
def test_escnns_own_modules_are_checked_in_either_mode(mode):
    convolution = escnn.nn.R2Conv(TYPE, TYPE, 3, padding=1).train(mode)
    assert_equivariant(convolution, dtype=torch.float32)
    assert convolution.training is mode


class Constant(EquivariantModule):
    def __init__(self, value):
        super().__init__()
        self.in_type = self.out_type = TYPE
        self.value = value

    def forward(self, x):
        return self.in_type(torch.full_like(x.tensor, self.value), x.coords)

    def evaluate_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_an_output_that_says_nothing_is_not_a_pass(value):
    with pytest.raises(AssertionError, match="says nothing"):
        assert_equivariant(Constant(value), domain="points")


def test_an_output_that_is_rounding_is_named_so():
    """Scalars and distances give no vectors: what comes out is the rounding of zero, and no fault of equivariance."""
    block = partial(steerable_block, num_heads=1, position=DistanceBias)
    network = SteerablePointTransformer("O2", out_fields={"vectors": 1}, channels=2, max_frequency=1, depth=1, block=block)
    with pytest.raises(AssertionError, match="zero up to rounding"):
        assert_equivariant(network, domain="points")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_rounding_where_a_scalar_crosses_zero_is_no_fault(dtype, tolerance):
    values, eps = torch.linspace(-1, 1, 101, dtype=dtype)[:, None], torch.finfo(dtype).eps
    assert field_error(values + 30 * eps, values) < tolerance < field_error(values + 300 * eps, values)


def test_positions_that_are_no_numbers_are_no_pass():
    x, nowhere = torch.randn(5, TYPE.size), torch.full((5, 2), torch.nan)
    assert np.isnan(field_error(TYPE(x, nowhere), TYPE(x, torch.randn(5, 2))))
    alone = TYPE(x[:1], torch.randn(1, 2))
    assert field_error(alone, alone) == 0


def test_checking_no_element_is_not_a_pass():
    with pytest.raises(AssertionError, match="no element"):
        assert_equivariant(SteerableLinear(TYPE, TYPE), elements=[])


def test_elements_that_move_pixels_off_the_grid_are_refused():
    x = TYPE(torch.randn(1, TYPE.size, 3, 3))
    with pytest.raises(ValueError, match="test it on points"):
        transform(x, TYPE.fibergroup.element(0.3))


@pytest.mark.parametrize(("group", "count"), [("SO2", 4), ("O2", 8), ("C8", 4), ("D4", 8), ("C3", 1), ("D1", 2)])
def test_lattice_elements(group, count):
    assert len(lattice_elements(planar_gspace(group))) == count


def test_transform_agrees_with_rot90_and_escnn():
    gspace = planar_gspace("C4")
    t = FieldType(gspace, [gspace.trivial_repr, gspace.irrep(1)])
    x = t(torch.randn(2, 3, 5, 5))
    quarter = gspace.fibergroup.element(1)
    assert torch.equal(transform(x, quarter).tensor[:, 0], x.tensor[:, 0].rot90(1, (-2, -1)))
    assert relative(transform(x, quarter).tensor, x.transform(quarter).tensor) < 1e-5
    points = cloud(fourier_type(planar_gspace("O2"), 4, 2))
    g = points.type.fibergroup.element((1, 0.7))
    theirs = points.transform(g)
    assert relative(transform(points, g).tensor, theirs.tensor) < 1e-12
    assert relative(transform(points, g).coords, theirs.coords) < 1e-12


def test_the_modes_of_the_original_are_as_before():
    model = small_model("C4").train()
    model.stem.eval()
    modes = [part.training for part in model.modules()]
    equivariance_error(model, size=29)
    assert [part.training for part in model.modules()] == modes
    with pytest.raises(ValueError, match=r"expected a tolerance for torch\.bfloat16"):
        assert_equivariant(model, dtype=torch.bfloat16)
