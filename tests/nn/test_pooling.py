"""Pooling of images and of clouds."""

import escnn.nn
import pytest
import torch
from escnn.nn import FieldType

from escnn_attn import InvariantPooling, fourier_type, planar_gspace
from tests.helpers import cloud, mixed_type, relative


def test_pooling_composes_with_escnns_linear():
    t = fourier_type(planar_gspace("O2"), 3, 2)
    pool = InvariantPooling(t)
    head = escnn.nn.Linear(pool.out_type, FieldType(pool.out_type.gspace, [pool.out_type.gspace.trivial_repr] * 4))
    assert head(pool(t(torch.randn(2, t.size, 5, 5)))).shape == (2, 4)
    assert pool.evaluate_output_shape((2, t.size, 5, 5)) == (2, pool.out_type.size)


def test_pooling_of_clouds_is_one_row_each():
    t = mixed_type("C3")
    pool, x = InvariantPooling(t).double(), cloud(t, 7)
    batch = torch.tensor([0, 2, 0, 2, 2, 0, 2])
    out = pool(x, batch=batch, batch_size=4).tensor
    assert out.shape == (4, pool.out_type.size)
    alone = pool(t(x.tensor[batch == 2], x.coords[batch == 2])).tensor
    assert relative(out[2:3], alone) < 1e-13
    assert out[[1, 3]].abs().max() == 0


def test_pooling_of_nothing_is_zero():
    t = mixed_type("C3")
    pool = InvariantPooling(t)
    nothing = t(torch.zeros(0, t.size), torch.zeros(0, 2))
    assert pool(nothing).tensor.tolist() == [[0.0] * pool.out_type.size]
    assert pool(nothing, batch=torch.zeros(0, dtype=torch.long), batch_size=2).shape == (2, pool.out_type.size)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_pooling_of_many_points_in_half_precision_is_finite(dtype, weighted):
    t = fourier_type(planar_gspace("C4"), 1)
    x = t(torch.full((70_000, 4), 1.0, dtype=dtype), torch.randn(70_000, 2, dtype=dtype))
    options = {"quadrature_weights": torch.full((70_000,), 2.0, dtype=dtype)} if weighted else {}
    out = InvariantPooling(t).to(dtype)(x, **options).tensor
    assert out.dtype == dtype
    assert relative(out[0].float(), InvariantPooling(t)(t(x.tensor.float()[:10], x.coords.float()[:10])).tensor[0]) < 1e-2


@pytest.mark.parametrize("scale", [1e-38, 3e38, 1e300])
def test_pooling_takes_weights_of_any_scale(scale):
    t = fourier_type(planar_gspace("C4"), 2)
    x, weights = t(torch.randn(9, 8), torch.randn(9, 2)), torch.rand(9, dtype=torch.float64)
    weights = (weights / weights.max()).float().double()
    expected = InvariantPooling(t)(x, quadrature_weights=weights).tensor
    scaled = weights * scale if scale > 1e100 else (weights * scale).float()
    assert relative(InvariantPooling(t)(x, quadrature_weights=scaled).tensor, expected) < 1e-5
