"""Stems of large images, and by attention."""

from functools import partial

import pytest
import torch
from escnn.nn import GeometricTensor

from escnn_attn import SteerableTransformer, antialiased_stem, field_type, fourier_type, lifting_stem, patch_stem, planar_gspace
from escnn_attn.analysis.equivariance import smooth_image
from escnn_attn.testing import equivariance_error
from tests.helpers import assert_every_parameter_has_gradient, worst

IMAGES = [torch.cat([smooth_image(angle, 112, seed=seed, width=7.5) for seed in range(4)]) for angle in (0.0, 30.0)]


def stem_of(group, **options):
    gspace = planar_gspace(group)
    return antialiased_stem(
        field_type(gspace, scalars=1), fourier_type(gspace, 2, 1 if "O" in group else None), hidden_channels=2, **options
    )


@pytest.mark.parametrize("group", ["SO2", "O2", "C8", "D4"])
@pytest.mark.parametrize("side", [35, 36, 37, 38])
def test_quarter_turns_and_flips_are_exact_on_every_side(group, side):
    stem = stem_of(group, kernel_sizes=(7, 5), strides=(3, 2, 2))
    assert worst(equivariance_error(stem, size=side, batch=1)) < 1e-6
    assert stem.evaluate_output_shape((1, 1, side, side))[2:] == (3 + (side > 36), 3 + (side > 36))


@torch.no_grad()
def change(network, readout):
    """The relative change of what is read out when smooth images turn by 30°, and that relative to the differences between images."""
    before, after = (readout(network.eval(), images) for images in IMAGES)
    errors = (after - before).norm(dim=1).mean()
    return float(errors / before.norm(dim=1).mean()), float(errors / (before - before.mean(0)).norm(dim=1).mean())


def network_of(stem):
    torch.manual_seed(0)
    return SteerableTransformer("SO2", channels=8, max_frequency=2, depth=2, stem=stem)


def test_networks_change_by_little_under_turns_by_30_degrees():
    """And by more with patches; also relative to the differences between images, which constant features would not change."""
    ours = change(
        network_of(partial(antialiased_stem, strides=(2, 2, 2), kernel_sizes=(9, 5))), SteerableTransformer.invariants
    )
    patches = change(network_of(partial(patch_stem, patch_size=8)), SteerableTransformer.invariants)
    assert ours[0] < 0.01 < patches[0]
    assert ours[1] < 0.1 < patches[1]


def test_biases_start_with_values_and_all_parameters_have_gradients():
    stem = stem_of("SO2")
    biases = [parameter for name, parameter in stem.named_parameters() if name.endswith("bias")]
    assert [bias.std() > 0 for bias in biases] == [True, True]
    stem(GeometricTensor(torch.randn(1, 1, 48, 48), stem.in_type)).tensor.square().sum().backward()
    assert_every_parameter_has_gradient(stem)


@pytest.mark.parametrize("group", ["SO2", "O2", "C8", "D4"])
@pytest.mark.parametrize("strides", [(2, 2), (2, 1)])
def test_attention_lifts_scalars_for_any_group(group, strides):
    gspace = planar_gspace(group)
    out_type = fourier_type(gspace, 2, 1 if "O" in group else None)
    stem = lifting_stem(field_type(gspace, scalars=1), out_type, hidden_channels=4, num_heads=1, strides=strides)
    assert worst(equivariance_error(stem, size=29, batch=1)) < 1e-6
    side = 8 if strides[1] == 2 else 15
    out = stem(GeometricTensor(torch.randn(2, 1, 29, 29), stem.in_type)).tensor
    assert out.shape == (2, out_type.size, side, side)
    assert (out.unflatten(1, (2, -1)).std(dim=(0, 1, 3, 4)) > 1e-3).sum() >= 3  # not scalars alone: directions, too
    with pytest.raises(ValueError, match="strides"):
        lifting_stem(stem.in_type, out_type, strides=(2, 2, 2))
