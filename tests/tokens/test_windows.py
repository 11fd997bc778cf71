"""Convolutions and poolings that move the center of rotation say so, and what they advise keeps it."""

import warnings
from functools import partial

import escnn.nn
import pytest
import torch

from escnn_attn import SequentialModule, SteerableTransformer, convolution_stem, field_type, fourier_type, planar_gspace
from escnn_attn.testing import equivariance_error
from escnn_attn.tokens.windows import fitting_side, keeps_center, near_tokens, warn_off_center, windows_of
from tests.helpers import worst

IMAGE = field_type(planar_gspace("C4"), scalars=1)
HIDDEN = fourier_type(planar_gspace("C4"), 2)


@pytest.fixture(autouse=True)
def _warn_anew():
    warn_off_center.cache_clear()


def tutorial_chain(kernel=9, padding=4, stride=2):
    return SequentialModule(
        escnn.nn.R2Conv(IMAGE, HIDDEN, kernel, stride=stride, padding=padding),
        escnn.nn.ReLU(HIDDEN),
        SequentialModule(escnn.nn.R2Conv(HIDDEN, HIDDEN, 5, stride=2, padding=2)),
    )


def warnings_of(module, *sides):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module(module.in_type(torch.randn(1, module.in_type.size, *sides)))
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("side", [28, 32, 48, 64, 96])
def test_a_chain_that_loses_the_center_warns_once(side):
    chain = tutorial_chain()
    (text, *_) = warnings_of(chain, side, side)
    assert text.startswith(f"R2Conv moves the rotation center of a grid of {side} × {side}")
    assert f"resample to {side + 1} × {side + 1}" in text
    assert "a kernel of 10 instead of 9" in text
    assert warnings_of(chain, side, side) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert worst(equivariance_error(chain, size=side)) > 1e-2  # what it warns of is real


def test_sides_that_keep_the_center_pass_without_a_word():
    assert warnings_of(tutorial_chain(), 29, 33) == []
    assert worst(equivariance_error(tutorial_chain(), size=29)) < 1e-5


@pytest.mark.parametrize(
    "other", [{"kernel": 10, "padding": 4}, {"kernel": 10, "padding": 2}, {"stride": 1, "kernel": 6, "padding": 2}]
)
def test_other_windows_keep_it(other):
    """What the warning advises for the first convolution on 28 × 28 pixels."""
    chain = SequentialModule(*list(tutorial_chain(**other))[:2])
    assert warnings_of(chain, 28, 28) == []
    assert worst(equivariance_error(chain, size=28)) < 1e-4


def test_convolutions_and_poolings_of_escnn_warn_and_those_of_stems_and_the_trivial_group_do_not():
    def strided(in_type, out_type):
        return SequentialModule(escnn.nn.R2Conv(in_type, out_type, 5, stride=2, padding=2))

    assert "R2Conv moves" in warnings_of(strided(IMAGE, HIDDEN), 28, 28)[0]
    assert "PointwiseMaxPool2D moves" in warnings_of(SequentialModule(escnn.nn.PointwiseMaxPool(HIDDEN, 2)), 8, 9)[0]
    plain = planar_gspace("trivial")
    assert warnings_of(strided(field_type(plain, scalars=1), fourier_type(plain, 2)), 28, 28) == []
    assert warnings_of(convolution_stem(IMAGE, HIDDEN), 28, 28) == []


def test_a_padding_is_advised_where_it_helps():
    (window,) = windows_of(escnn.nn.R2Conv(IMAGE, HIDDEN, 3, stride=4, padding=1))
    assert window.rest(15) == 2
    assert "a padding of 2 instead of 1" in window.remedies(15)
    assert window._replace(padding=2).rest(15) == 0
    assert fitting_side([window], 15) == 17
    assert not keeps_center([window], 15)


def test_transposed_convolutions_keep_the_center():
    assert windows_of(escnn.nn.R2ConvTransposed(HIDDEN, HIDDEN, 3, stride=2)) == []


def test_networks_say_what_keeps_it():
    with pytest.raises(
        ValueError,
        match=r"resample them to 29 × 29 .* or take a stem with a SteerableConvolution, a kernel of 10 instead of 9, a",
    ):
        SteerableTransformer("C4", stem=partial(two_windows, sizes=(9, 5)))(torch.randn(1, 1, 28, 28))
    with pytest.raises(ValueError, match=r"\(15 \+ 2·2 − 6 must be a multiple of the stride\)"):
        SteerableTransformer("C4", stem=partial(two_windows, sizes=(9, 6)))(torch.randn(1, 1, 29, 29))


@pytest.mark.parametrize("side", [6, 7])
def test_a_token_between_pixels_takes_their_mean_and_counts_if_one_of_them_does(side):
    pixels = torch.rand(1, side, side)
    near = near_tokens(pixels, (-(-side // 2),) * 2, stride=2)
    naive = pixels[:, ::2, ::2] if side % 2 else torch.nn.functional.avg_pool2d(pixels, 2)
    assert torch.allclose(near, naive)
    mask = pixels > 0.7
    counts = mask[:, ::2, ::2] if side % 2 else torch.nn.functional.max_pool2d(mask.float(), 2) > 0
    assert torch.equal(near_tokens(mask, tuple(near.shape[1:]), stride=2), counts)


def two_windows(in_type, out_type, sizes):
    first, second = sizes
    return SequentialModule(
        escnn.nn.R2Conv(in_type, out_type, first, stride=2, padding=4),
        escnn.nn.R2Conv(out_type, out_type, second, stride=2, padding=2),
    )
