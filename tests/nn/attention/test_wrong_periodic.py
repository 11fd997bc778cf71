"""What has no meaning on a periodic domain."""

from functools import partial

import pytest
import torch

from escnn_attn import (
    Disc,
    Grid,
    GroupSelfAttention,
    SteerableCrossAttention,
    SteerableSelfAttention,
    SteerableTransformer,
    fourier_type,
    planar_gspace,
    steerable_block,
)


def test_what_has_no_meaning_on_a_torus_is_refused():
    t = fourier_type(planar_gspace("C4"), 2)
    x = t(torch.randn(1, t.size, 6, 9))
    attention = partial(SteerableSelfAttention, t, num_heads=1)
    with pytest.raises(ValueError, match=r"radius must be less than half of the periodic cell.*: expected less than 3, got 3"):
        attention(neighborhood=Disc(3.0))(x, periodic=True)
    for module in (attention(), GroupSelfAttention(t, num_heads=1), steerable_block(t, num_heads=1)):
        with pytest.raises(ValueError, match=r"all pairs of tokens cannot attend on a periodic domain.*such as Disc\(3.0\)"):
            module(x, periodic=True)
    with pytest.raises(ValueError, match=r"cell is for points, but this tensor is a grid.*take periodic=True"):
        attention()(x, cell=(6.0, 9.0))
    with pytest.raises(TypeError, match="periodic must be True or False, got 'x'"):
        attention()(x, periodic="x")
    with pytest.raises(ValueError, match="expected a grid with a border for a disc within it, got a periodic one"):
        Grid(5, 5, periodic=True).disc()
    network = SteerableTransformer("C4", channels=4, depth=1)
    with pytest.raises(
        ValueError, match="expected periodic=False, which the stem of this SteerableTransformer is made for, got True"
    ):
        network(network.in_type(torch.randn(1, 1, 29, 29)), periodic=True)
    cross = SteerableCrossAttention(t, t, num_heads=1, neighborhood=Disc(1.0))
    with pytest.raises(ValueError, match=r"in one periodic cell.*\(9.0, 6.0\) and \(18.0, 12.0\)"):
        cross(x, x, periodic=True, context_spacing=2.0)
    with pytest.raises(ValueError, match="cell is for points"):
        cross(x, x, cell=(9.0, 6.0), spacing=2.0, context_spacing=2.0)
