"""What resampling refuses, and narrow blurs."""

import pytest
import torch

from escnn_attn import AntialiasedPooling, SteerableConvolution, Upsampling, field_type, planar_gspace
from tests.helpers import relative

T = field_type(planar_gspace("SO2"), scalars=1, vectors=1)


@pytest.mark.parametrize("module", [SteerableConvolution(T, T, 3), Upsampling(T, 2), AntialiasedPooling(T)])
def test_points_are_refused(module):
    with pytest.raises(TypeError, match=r"expected a grid .*, got points"):
        module(T(torch.randn(5, T.size), torch.randn(5, 2)))


@pytest.mark.parametrize("size", [9, (9.0, 9.0), (0, 9), (9, 9, 9)])
def test_sizes_to_upsample_to_are_checked(size):
    with pytest.raises((TypeError, ValueError), match="size"):
        Upsampling(T, 2)(T(torch.randn(1, T.size, 5, 5)), size=size)


def test_a_narrow_blur_is_that_of_the_nearest_pixels():
    assert relative(AntialiasedPooling(T, 2, 0.015)(T(torch.ones(1, T.size, 6, 6))).tensor, torch.ones(1, T.size, 3, 3)) < 1e-6
