"""Tokens made denser after training: the same weights, nearer to the integrals over the plane."""

from functools import partial

import escnn.nn
import pytest
import torch

from escnn_attn import (
    AntialiasedPooling,
    Disc,
    KNearest,
    SequentialModule,
    SteerableBackbone,
    SteerableConvolution,
    SteerableFieldTransformer,
    SteerableTransformer,
    antialiased_stem,
    fourier_type,
    lifting_stem,
    patch_stem,
    steerable_block,
)
from escnn_attn.analysis import attention_map
from escnn_attn.analysis.rotation import accuracy_by_angle
from escnn_attn.data import Digits
from tests.helpers import relative, small_model

DIGITS = partial(antialiased_stem, kernel_sizes=(9, 5), strides=(1, 2, 2))


@pytest.mark.parametrize(
    ("group", "options"),
    [
        ("SO2", {}),
        ("O2", {"stem": DIGITS, "block": partial(steerable_block, num_heads=2, neighborhood=Disc(2.0))}),
        ("D4", {"stem": lifting_stem}),
        ("SO2", {"stem": patch_stem}),
    ],
)
def test_tokens_of_before_are_among_them(group, options):
    network = small_model(group, **options).eval()
    finer, x = network.refined(), torch.randn(2, 1, 29, 29)
    coarse, dense = network.embed(x).domain, finer.embed(x).domain
    assert dense.num_tokens > 3 * coarse.num_tokens
    assert network.spacing == 1
    assert finer.spacing == 0.5
    within = coarse.positions[0].norm(dim=-1) < 3.6  # the disc of the image, in tokens
    assert torch.cdist(coarse.positions[0, within], dense.positions[0]).amin(dim=1).max() < 1e-6
    stems = [part.stem(network.in_type(x)).tensor for part in (network, finer)]
    assert relative(stems[1][..., ::2, ::2], stems[0]) < 1e-5
    logits = finer(x)
    assert relative(finer(x.rot90(1, (2, 3))), logits) < 1e-5
    assert relative(finer.export()(x), logits) < 1e-5


def test_digits_that_turn_change_less():
    network, (images, labels) = SteerableTransformer.from_pretrained("rotmnist_50k"), Digits().upright_test_images()
    found = [accuracy_by_angle(part, images[:20], labels[:20])["change_by_angle"] for part in (network, network.refined())]
    before, after = (sum(changes) / len(changes) for changes in found)
    assert after < 0.8 * before


def test_fields_come_at_the_finer_tokens():
    network = SteerableFieldTransformer("SO2", out_fields={"vectors": 1}, channels=4, depth=1).eval()
    assert network(torch.randn(1, 1, 29, 29)).shape == (1, 2, 8, 8)
    assert network.refined()(torch.randn(1, 1, 29, 29)).shape == (1, 2, 15, 15)


def test_attention_is_drawn_at_the_same_pixels():
    network = small_model("SO2").eval()
    coarse, dense = (attention_map(part, torch.rand(1, 1, 29, 29)).positions for part in (network, network.refined()))
    assert dense.norm(dim=-1).max() == pytest.approx(coarse.norm(dim=-1).max(), abs=2)  # half a coarse token, in pixels


def test_factors():
    network = SteerableTransformer("SO2", channels=4, depth=1, stem=patch_stem)
    assert network.refined(4).spacing == 0.25
    assert network.refined(2).refined(2).stem[-1].stride == 1
    with pytest.raises(ValueError, match="divides the last stride"):
        network.refined(3)
    with pytest.raises(ValueError, match="factor must be"):
        network.refined(0)


def escnn_stem(in_type, out_type):
    return SequentialModule(escnn.nn.R2Conv(in_type, out_type, 5, stride=4, padding=2))


def pooled_by_escnn(in_type, out_type):
    return SequentialModule(
        SteerableConvolution(in_type, out_type, 9, stride=2), escnn.nn.PointwiseAvgPoolAntialiased2D(out_type, 0.66, 2)
    )


def smoothed(in_type, out_type):
    t = fourier_type(out_type.gspace, 4, 3)
    return SequentialModule(SteerableConvolution(in_type, t, 9), AntialiasedPooling(t, 4), SteerableConvolution(t, out_type, 5))


@pytest.mark.parametrize("stem", [escnn_stem, pooled_by_escnn, smoothed])
def test_stems_that_cannot_be_refined(stem):
    with pytest.raises(ValueError, match="divides the last stride of the stem"):
        SteerableTransformer("SO2", channels=4, depth=1, stem=stem).refined()


def test_what_is_saved_is_the_network_before(tmp_path):
    with pytest.raises(TypeError, match="save the one that it was refined of"):
        small_model("SO2").refined().save_pretrained(tmp_path)


def test_networks_that_cannot_be_refined():
    block = partial(steerable_block, num_heads=1, neighborhood=KNearest(4))
    with pytest.raises(ValueError, match="such as Disc, got KNearest"):
        SteerableTransformer("SO2", channels=4, depth=1, block=block).refined()
    with pytest.raises(TypeError, match="one resolution"):
        SteerableBackbone("SO2", stages="small").refined()


def test_attention_between_the_last_stride_and_the_tokens_is_refused():
    """It would see its tokens twice as far apart as they were in training."""
    network = small_model("C4", stem=partial(lifting_stem, strides=(4, 1)))
    with pytest.raises(ValueError, match="no attention behind it"):
        network.refined()
