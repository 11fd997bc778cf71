"""Checks of modules on periodic grids: what wraps around passes, and what sees a border is caught."""

import escnn.nn
import pytest
import torch
from escnn.nn import EquivariantModule, GeometricTensor

from escnn_attn import Disc, SequentialModule, SteerableLinear, SteerableSelfAttention, TokenModule, fourier_type, planar_gspace
from escnn_attn.testing import assert_equivariant, equivariance_error, roll
from escnn_attn.tokens import Tokens

TYPE = fourier_type(planar_gspace("C4"), 2)


class IgnoresPeriodic(EquivariantModule):
    """Attention that takes `periodic` and pads by zeros."""

    def __init__(self):
        super().__init__()
        self.in_type = self.out_type = TYPE
        self.inner = SteerableSelfAttention(TYPE, num_heads=1, neighborhood=Disc(2.0))

    def forward(self, input, periodic=False):
        return self.inner(input)

    def evaluate_output_shape(self, input_shape):
        return input_shape


class MadePeriodic(IgnoresPeriodic):
    """Attention that is periodic by itself."""

    periodic = True

    def forward(self, input):
        return self.inner(input, periodic=True)


class PinnedCorner(TokenModule):
    """Equivariant to turns and flips about the center of a grid, but not to shifts: tokens fade with their distance from it."""

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        window = torch.exp(-tokens.domain.positions.norm(dim=-1) / 9)
        return tokens.with_features(tuple(f * window[..., None] for f in tokens.features))


class EvenSides(TokenModule):
    """The same on grids of two even sides alone."""

    def forward_tokens(self, tokens: Tokens) -> Tokens:
        return tokens if tokens.domain.num_tokens % 4 else PinnedCorner(self.in_type, self.in_type).forward_tokens(tokens)


def convolution(mode: str) -> escnn.nn.R2Conv:
    return escnn.nn.R2Conv(TYPE, TYPE, 3, padding=1, padding_mode=mode)


def attention(radius: float = 3.0) -> SteerableSelfAttention:
    return SteerableSelfAttention(TYPE, num_heads=1, neighborhood=Disc(radius))


GOOD = {
    "made periodic": MadePeriodic,
    "chain": lambda: SequentialModule(SteerableLinear(TYPE, TYPE), convolution("circular"), attention()),
    "pooled by strides": lambda: SequentialModule(escnn.nn.PointwiseAvgPool2D(TYPE, 2), attention(1.0)),
}
BROKEN = {
    "zero padding": lambda: convolution("zeros"),
    "ignores periodic": IgnoresPeriodic,
    "pinned": lambda: PinnedCorner(TYPE, TYPE),
    "even sides": lambda: EvenSides(TYPE, TYPE),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_wraps_around_passes(name):
    assert_equivariant(GOOD[name](), periodic=True)


@pytest.mark.parametrize("name", BROKEN)
def test_what_sees_a_border_is_caught(name):
    module = BROKEN[name]()
    assert_equivariant(module, domain="grid")  # turns and flips alone do not tell
    with pytest.raises(AssertionError, match="is not equivariant to cyclic shifts by 1 rows and 0 columns: relative error"):
        assert_equivariant(module, periodic=True)


def test_errors_on_periodic_grids_are_those_of_the_wrapped_field():
    errors = equivariance_error(attention(), periodic=True, size=8)
    assert len(errors) == 4
    assert max(error for _, error in errors) < 1e-12


def test_points_are_no_periodic_grid():
    with pytest.raises(ValueError, match='expected the domain "grid" for periodic=True, got "points"'):
        assert_equivariant(attention(), periodic=True, domain="points")
    with pytest.raises(TypeError, match="periodic must be True or False, got 1"):
        assert_equivariant(attention(), periodic=1)


def test_grids_roll_down_and_to_the_right():
    x = GeometricTensor(torch.zeros(1, TYPE.size, 3, 4), TYPE)
    x.tensor[0, 0, 2, 3] = 1
    assert roll(x, 1, 2).tensor[0, 0].nonzero().tolist() == [[0, 1]]
    points = GeometricTensor(torch.zeros(5, TYPE.size), TYPE, torch.rand(5, 2))
    assert roll(points, 1, 2) is points
