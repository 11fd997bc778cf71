"""Convolutions and resampling about the center of images of every side."""

import copy
import pickle

import escnn.nn
import numpy as np
import pytest
import torch
from escnn.group import change_basis
from escnn.nn import FieldType
from escnn.nn.modules.basismanager import BlocksBasisExpansion

from escnn_attn import (
    AntialiasedPooling,
    SequentialModule,
    SteerableConvolution,
    Upsampling,
    field_type,
    fourier_type,
    planar_gspace,
)
from escnn_attn.nn import _kernels
from escnn_attn.testing import equivariance_error
from tests.helpers import relative, worst

TYPES = {
    group: (
        field_type(planar_gspace(group), scalars=1, vectors=1),
        fourier_type(planar_gspace(group), 2, 1 if "O" in group else None),
    )
    for group in ("SO2", "O2", "C8", "D4")
}


@pytest.mark.parametrize("group", TYPES)
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (5, 2), (5, 3), (7, 4)])
@pytest.mark.parametrize("side", [8, 9, 10, 11])
def test_every_side_turns_about_its_center(group, kernel_size, stride, side):
    convolution = SteerableConvolution(*TYPES[group], kernel_size, stride=stride)
    assert worst(equivariance_error(convolution, size=side, batch=1)) < 1e-6


def test_escnns_own_loses_the_center_of_even_sides():
    """The check of the test above can fail."""
    assert worst(equivariance_error(escnn.nn.R2Conv(*TYPES["C8"], 5, stride=2, padding=2), size=8)) > 0.1


@pytest.mark.parametrize("shape", [(12, 9), (9, 12), (11, 13), (12, 14)])
def test_rectangles_turn_by_half_and_flip(shape):
    convolution = SteerableConvolution(*TYPES["O2"], 5, stride=2).eval()
    group, x = planar_gspace("O2").fibergroup, torch.randn(1, 3, *shape)
    with torch.no_grad():
        y = convolution(convolution.in_type(x)).tensor
        assert y.shape[2:] == tuple(-(-side // 2) for side in shape)
        assert y.shape == convolution.evaluate_output_shape(tuple(x.shape))
        for element, axes in (((0, torch.pi), (-2, -1)), ((1, 0.0), (-1,))):
            before, after = (torch.tensor(t.representation(group.element(element))).float() for t in TYPES["O2"])
            moved = convolution.in_type(torch.einsum("ij,bjhw->bihw", before, x.flip(axes)))
            assert relative(convolution(moved).tensor, torch.einsum("ij,bjhw->bihw", after, y.flip(axes))) < 1e-5


def test_on_odd_sides_it_is_that_of_escnn():
    ours = SteerableConvolution(*TYPES["C8"], 5, stride=2)
    theirs = escnn.nn.R2Conv(*TYPES["C8"], 5, stride=2, padding=2)
    assert set(ours.state_dict()) == set(theirs.state_dict()) - {"filter", "expanded_bias"}
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x = ours.in_type(torch.randn(2, 3, 13, 9))
    assert relative(ours(x).tensor, theirs(x).tensor) < 1e-6


def tilted_type() -> FieldType:
    """A field whose second component is of two irreps, which the first and the third have too."""
    ((function, *_), gspace) = fourier_type(planar_gspace("SO2"), 1, 1).representations, planar_gspace("SO2")
    tilt = np.array([[1, 0, 0], [0.5, 1, 0], [0, 0, 1]])
    return FieldType(gspace, [change_basis(function, tilt, name="tilted")])


@pytest.mark.parametrize("group", [*TYPES, "tilted"])
@pytest.mark.parametrize("number", range(4))
def test_kernels_and_their_gradients_are_sums_with_all_weights(group, number, monkeypatch):
    """On grids of odd and even sides, as those of `escnn.nn.R2Conv`, which multiplies by the zeros of its kernels too."""
    in_type, out_type = TYPES.get(group, [tilted_type()] * 2)
    mixed = in_type + out_type + in_type  # fields of one kind apart from each other
    convolution = SteerableConvolution(mixed, out_type, 3)
    kernel = convolution.kernel(number)[0]
    grads = torch.randn_like(kernel)
    (gradient,) = torch.autograd.grad(kernel, convolution.weights, grads)
    monkeypatch.setattr(_kernels, "expand", lambda weights, samples, _: torch.einsum("oib,bdcp->odicp", weights, samples))
    plain = convolution.kernel(number)[0]
    assert relative(kernel, plain) < 1e-6
    assert relative(gradient, torch.autograd.grad(plain, convolution.weights, grads)[0]) < 1e-6


def test_few_products_are_by_zeros():
    """For the irreps 0, 1 and 2 each kernel is between two of them."""
    fields = fourier_type(planar_gspace("SO2"), 1, 2)
    (block,) = vars(SteerableConvolution(fields, fields, 5)._basisexpansion)["_modules"].values()
    assert [rows for rows, _ in block.support] == [(0,), (1, 2), (3, 4)]
    assert sum(len(kernels) for _, kernels in block.support) == block.dimension()


def test_gradients_of_kernels_have_gradients():
    convolution = SteerableConvolution(*TYPES["D4"], 3).double()
    weights = torch.randn_like(convolution.weights).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda weights: convolution._basisexpansion(weights).square(), weights)


@pytest.mark.parametrize("group", TYPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_weights_begin_as_those_of_escnn(group, reverse):
    mixed = TYPES[group][0] + TYPES[group][1] + TYPES[group][0]  # fields of one kind apart from each other
    types = (TYPES[group][1], mixed) if reverse else (mixed, TYPES[group][1])
    torch.manual_seed(0)
    ours = SteerableConvolution(*types, 3)
    torch.manual_seed(0)
    assert torch.allclose(ours.weights, escnn.nn.R2Conv(*types, 3).weights)


def test_even_sides_see_the_same_function():
    """A smooth image, sampled on 64 and on 65 pixels, gives nearly the same means of the output."""
    convolution = SteerableConvolution(*TYPES["SO2"], 7, stride=2).eval()

    def mean(side):
        x = torch.arange(side) - (side - 1) / 2
        image = torch.exp(-(x[:, None] ** 2 + (x - 5) ** 2) / 50).expand(1, 3, -1, -1)
        return convolution(convolution.in_type(image.contiguous())).tensor.sum((2, 3))

    with torch.no_grad():
        assert relative(mean(64), mean(65)) < 0.05


def test_kernels_in_eval_follow_the_weights_and_have_gradients():
    convolution = SteerableConvolution(*TYPES["C8"], 3, stride=2)
    x = convolution.in_type(torch.randn(1, 3, 8, 7))
    trained = convolution(x).tensor
    convolution.eval()
    with torch.no_grad():
        assert torch.equal(convolution(x).tensor, trained)
        assert convolution.kernel_of(x.tensor)[0] is convolution.kernel_of(x.tensor)[0]  # kept
        convolution.weights.data.mul_(2)
        assert relative(convolution(x).tensor, 2 * trained) < 1e-5
    convolution(x).tensor.sum().backward()
    assert convolution.weights.grad is not None


@pytest.mark.parametrize("group", ["SO2", "O2", "D4"])
def test_kernels_of_another_machine_are_those_of_all_sides(group):
    """There escnn may have found other kernels of the same space: the state holds their samples on the odd grid."""
    convolution = SteerableConvolution(*TYPES[group], 5, stride=2).eval()
    state, expansion = copy.deepcopy(convolution.state_dict()), convolution.basisexpansion
    for pair in expansion._representations_pairs:
        name = f"block_expansion_{expansion._escape_pair(pair)}"
        samples, (start, end) = state[f"_basisexpansion.{name}.sampled_basis"], expansion._weights_ranges[pair]
        change = torch.linalg.qr(torch.randn(len(samples), len(samples)))[0]
        state[f"_basisexpansion.{name}.sampled_basis"] = torch.einsum("ab,b...->a...", change, samples)
        state["weights"][start:end] = (state["weights"][start:end].view(-1, len(samples)) @ change.T).flatten()
    other = SteerableConvolution(*TYPES[group], 5, stride=2).eval()
    before = other.kernel(3)[0]
    other.load_state_dict(state)
    for number in range(4):
        assert relative(other.kernel(number)[0], convolution.kernel(number)[0]) < 1e-4
    assert relative(before, convolution.kernel(3)[0]) > 0.1
    with pytest.raises(ValueError, match="samples of other functions"):
        other.load_state_dict({name: torch.randn_like(x) for name, x in state.items()})


def test_copies_pickles_and_exports_compute_the_same():
    convolution = SteerableConvolution(*TYPES["D4"], 5, stride=2).eval()
    twins = [copy.deepcopy(convolution), pickle.loads(pickle.dumps(convolution))]
    exported = SequentialModule(convolution).export()
    for shape in ((8, 8), (7, 8), (9, 9)):
        x = convolution.in_type(torch.randn(1, 3, *shape))
        for twin in twins:
            assert torch.equal(twin(twin.in_type(x.tensor)).tensor, convolution(x).tensor)
        assert torch.equal(exported(x.tensor), convolution(x).tensor)
    assert twins[0].train().double().kernel(3)[0].dtype != convolution.kernel(3)[0].dtype


def test_periodic_images_may_be_shifted():
    """By multiples of the stride; and they must have sides that the stride divides."""
    convolution = SteerableConvolution(*TYPES["O2"], 5, stride=2, padding_mode="circular").eval()
    x = torch.randn(1, 3, 12, 10)
    with torch.no_grad():
        shifted = convolution(convolution.in_type(x.roll((2, 4), (2, 3)))).tensor
        assert relative(shifted, convolution(convolution.in_type(x)).tensor.roll((1, 2), (2, 3))) < 1e-5
    assert worst(equivariance_error(convolution, size=12)) < 1e-6
    with pytest.raises(ValueError, match=r"multiples of the stride 2, got 11 × 12"):
        convolution(convolution.in_type(torch.randn(1, 3, 11, 12)))


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("side", [9, 10, 11, 12])
def test_pooling_and_upsampling_keep_the_center(stride, side):
    t = TYPES["D4"][0]
    pooling, upsampling = AntialiasedPooling(t, stride), Upsampling(t, stride)
    assert worst(equivariance_error(pooling, size=side)) < 1e-10
    assert worst(equivariance_error(upsampling, size=side)) < 1e-10
    tokens = pooling(t(torch.randn(1, 3, side, side)))
    again = upsampling(tokens, size=(side, side)).tensor
    assert relative(again.flip(-1, -2), upsampling(t(tokens.tensor.flip(-1, -2)), size=(side, side)).tensor) < 1e-5


@pytest.mark.parametrize("sigma", [0.66, 1.5])
def test_pooling_is_that_of_escnn_on_odd_sides(sigma):
    t, x = TYPES["C8"][1], torch.randn(2, TYPES["C8"][1].size, 9, 11)
    theirs = escnn.nn.PointwiseAvgPoolAntialiased(t, sigma=sigma, stride=2)
    assert relative(AntialiasedPooling(t, 2, sigma)(t(x)).tensor, theirs(t(x)).tensor) < 1e-6


def test_upsampling_is_exact_for_linear_fields():
    """Also about the center of sides that are no multiple of the stride; the outermost tokens, where values go on, aside."""
    t = field_type(planar_gspace("C4"), scalars=1)
    for tokens, scale, pixels in ((8, 2, 15), (8, 2, 16), (8, 4, 30), (9, 3, 25)):
        ramp = (torch.arange(tokens) - (tokens - 1) / 2) * scale
        fine = torch.arange(pixels) - (pixels - 1) / 2
        up = Upsampling(t, scale)(t(ramp.expand(1, 1, tokens, -1)), size=(pixels, pixels)).tensor[0, 0]
        inner = fine.abs() <= (tokens - 3) / 2 * scale
        assert torch.allclose(up[:, inner], fine[inner].expand(pixels, -1), atol=1e-5)


def test_periodic_upsampling_may_be_shifted():
    t = field_type(planar_gspace("C4"), scalars=1)
    up, x = Upsampling(t, 2, padding_mode="circular"), torch.randn(1, 1, 6, 6)
    assert relative(up(t(x.roll(1, 2))).tensor, up(t(x)).tensor.roll(2, 2)) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, "odd kernel_size"),
        ({"kernel_size": 3, "stride": 4}, "at least the stride, got kernel_size=3 and stride=4"),
        ({"kernel_size": 3, "padding_mode": "reflect"}, "padding_mode to be one of 'zeros', 'circular', got 'reflect'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SteerableConvolution(*TYPES["C8"], **arguments)


def test_expansions_of_equal_kernels_are_two_modules():
    t = TYPES["SO2"][0]
    pair = torch.nn.ModuleList(escnn.nn.R2Conv(t, t, 3) for _ in range(2))
    assert len([m for m in pair.modules() if isinstance(m, BlocksBasisExpansion)]) == 2


def test_kernels_in_half_precision_are_loaded_again():
    """Those of large kernels are rounded by more than kernels of other machines differ."""
    t = field_type(planar_gspace("C6"), scalars=1)
    convolution = SteerableConvolution(t, t, 9).bfloat16()
    convolution.load_state_dict(convolution.state_dict())
