"""Attention on periodic domains: exact under cyclic shifts too, and that of the field repeated over the plane."""

from functools import partial

import numpy as np
import pytest
import torch

from escnn_attn import (
    Disc,
    GroupSelfAttention,
    KNearest,
    Neighborhood,
    NoPosition,
    RotaryEmbedding,
    SteerableCrossAttention,
    SteerableSelfAttention,
    fourier_type,
    planar_gspace,
)
from escnn_attn.testing import lattice_elements, transform
from tests.helpers import POSITIONS, assert_every_parameter_has_gradient, attention_on, mixed_type, randomize, relative

EXACT = partial(RotaryEmbedding, tolerance=1e-12)


class Ring(Neighborhood):
    """Keys at distances about 2."""

    def pairs(self, query, key, slack):
        distance = np.linalg.norm(key[:, None] - query[None], axis=-1)
        return np.stack(np.nonzero((distance > 1.5 - slack) & (distance < 2.5 + slack)))


NEAR = {"disc": Disc(2.0), "wide disc": Disc(2.9), "nearest": KNearest(9), "ring": Ring()}


def field(module, height=6, width=7, batch=2):
    return module.in_type(torch.randn(batch, module.in_type.size, height, width, dtype=torch.float64))


def repeated(module, x, **parts):
    """The layer on 3 × 3 copies of a field, with a border, in the copy in the middle."""
    height, width = x.tensor.shape[2:]
    tiled = {name: part.repeat(1, 3, 3) for name, part in parts.items()}
    out = module(module.in_type(x.tensor.repeat(1, 1, 3, 3)), **tiled).tensor
    return out[:, :, height : 2 * height, width : 2 * width]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("name", ["C4", "O2"])
def test_a_periodic_field_is_that_field_repeated(near, position, name):
    module = attention_on(name, neighborhood=NEAR[near], position=EXACT if position == "rotary" else POSITIONS[position])
    x = field(module)
    with torch.no_grad():
        assert relative(module(x, periodic=True).tensor, repeated(module, x)) < 1e-12


@pytest.mark.parametrize("near", NEAR)
def test_padding_and_weights_repeat_too(near):
    module = attention_on("D4", neighborhood=NEAR[near])
    x = field(module)
    mask, weights = torch.rand(2, 6, 7) > 0.4, torch.rand(2, 6, 7)
    mask[1] = False
    mask[1, 0, 0] = True  # a token that sees no other
    poisoned = module.in_type(x.tensor.masked_fill(~mask[:, None], torch.nan).requires_grad_())
    out = module(poisoned, periodic=True, mask=mask, quadrature_weights=weights).tensor
    out.sum().backward()
    assert poisoned.tensor.grad.isfinite().all()
    assert relative(out, repeated(module, x, mask=mask, quadrature_weights=weights)) < 1e-12
    assert out.masked_select(~mask[:, None].expand_as(out)).abs().max() == 0


@pytest.mark.parametrize("name", ["C4", "D4", "SO2", "O2"])
@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("near", ["disc", "wide disc", "nearest"])
def test_shifts_turns_and_flips_are_exact(name, side, near):
    module = attention_on(name, neighborhood=NEAR[near])
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        module, x = module.to(dtype), field(module, side, side)
        x = module.in_type(x.tensor.to(dtype))
        with torch.no_grad():
            out = module(x, periodic=True)
            for g, shift in zip(lattice_elements(module.in_type.gspace), [(1, 0), (0, 3), (5, 2), (-1, 4)] * 2):
                moved = module.in_type(transform(x, g).tensor.roll(shift, (2, 3)))
                assert relative(module(moved, periodic=True).tensor, transform(out, g).tensor.roll(shift, (2, 3))) < bound
