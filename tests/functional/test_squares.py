"""Overlapping squares of a grid."""

import pytest
import torch

from escnn_attn.functional import squares

STEPS = [(3, 3), (4, 3), (5, 2), (7, 2), (2, 3)]


def grid_for(size, step, rows=3, columns=2):
    shape = (2, 2, size + step * (rows - 1), size + step * (columns - 1), 3)  # b h y x w
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("size", "step"), STEPS)
def test_each_square_is_where_it_should_be(size, step):
    x = grid_for(size, step)
    found = squares(x, size, step)
    assert found.shape == (2, 3, 2, 2, size, size, 3)
    assert found.is_contiguous()
    for row in range(3):
        for column in range(2):
            expected = x[:, :, row * step : row * step + size, column * step : column * step + size]
            assert torch.equal(found[:, row, column], expected)


@pytest.mark.parametrize(("size", "step"), STEPS)
def test_gradients_of_squares_and_their_gradients(size, step):
    """Also where a pixel is in more than two squares of a row."""
    x = grid_for(size, step)
    assert torch.autograd.gradcheck(lambda x: squares(x, size, step), x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: squares(x, size, step).square(), x, fast_mode=True)
