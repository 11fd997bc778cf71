"""Networks from images and clouds to logits and fields."""

from functools import partial

import escnn.nn
import pytest
import torch

from escnn_attn import (
    Disc,
    GatedFeedForward,
    PositionEmbedding,
    RotaryEmbedding,
    SequentialModule,
    SteerableFieldTransformer,
    SteerableLinear,
    SteerablePointClassifier,
    SteerablePointTransformer,
    SteerableTransformer,
    convolution_stem,
    field_type,
    group_block,
    lifting_stem,
    planar_gspace,
    steerable_block,
)
from escnn_attn.models import build
from escnn_attn.testing import equivariance_error
from tests.helpers import assert_every_parameter_has_gradient, cloud, mixed_type, relative, small_model, worst

EXACT = partial(steerable_block, num_heads=2, feedforward=GatedFeedForward, position=partial(RotaryEmbedding, tolerance=1e-9))


@pytest.mark.parametrize("group", ["trivial", "C3", "D4", "SO2", "O2"])
def test_fields_at_the_points_of_clouds(group):
    """Scalars and vectors in, vectors out, of several clouds: exact under every element, and under translations."""
    fields = {"scalars": 1, "vectors": 2}
    model = small_model(group, SteerablePointTransformer, in_type=fields, out_fields={"vectors": 1}, block=EXACT).double()
    assert model.in_type == field_type(planar_gspace(group), **fields)
    assert worst(equivariance_error(model, domain="points", size=5)) < 1e-7
    x = cloud(model.in_type)
    out = model(x).tensor
    assert out.shape == model.evaluate_output_shape(x.shape) == (23, 2)
    shifted = model.in_type(x.tensor, x.coords + torch.tensor([100.0, -20.0]))
    assert relative(model(shifted).tensor, out) < 1e-10
    batch = torch.arange(23) % 3
    separate = model(model.in_type(x.tensor[batch == 1], x.coords[batch == 1])).tensor
    assert relative(model(x, batch=batch, batch_size=4).tensor[batch == 1], separate) < 1e-9
    out.pow(2).sum().backward()
    # the first block meets scalars and vectors alone
    assert_every_parameter_has_gradient(model.blocks.layers[1])
    assert_every_parameter_has_gradient(model.readout)


@pytest.mark.parametrize("group", ["C4", "O2"])
def test_logits_of_clouds(group):
    local = partial(EXACT, neighborhood=Disc(3.0))
    model = small_model(group, SteerablePointClassifier, in_type={"scalars": 2}, num_classes=3, block=local).double()
    assert worst(equivariance_error(model, domain="points", size=5)) < 1e-7
    x = cloud(model.in_type)
    logits = model(x, batch=torch.arange(23) % 3, batch_size=4)
    assert logits.shape == (4, 3)
    weights = torch.rand(23, dtype=torch.float64)
    thrice = model.in_type(x.tensor.repeat(3, 1), x.coords.repeat(3, 1))
    assert relative(model(thrice, quadrature_weights=weights.repeat(3)), model(x, quadrature_weights=weights)) < 1e-10


@pytest.mark.parametrize("group", ["D4", "SO2"])
@pytest.mark.parametrize("strides", [(1,), (2, 2)])
def test_fields_on_the_tokens_of_an_image(group, strides):
    stem = partial(convolution_stem, kernel_sizes=(5,) * len(strides), strides=strides)
    model = small_model(group, SteerableFieldTransformer, out_fields=mixed_type(group), stem=stem).double()
    out = model(torch.randn(2, 1, 13, 13, dtype=torch.float64))
    assert tuple(out.tensor.shape) == model.evaluate_output_shape((2, 1, 13, 13))
    assert out.type == mixed_type(group)
    assert worst(equivariance_error(model, size=13)) < 1e-5  # escnn's kernel bases are float32


def test_padding_of_an_image():
    """What is masked does not matter, and its tokens are zero."""
    stem = partial(convolution_stem, kernel_sizes=(1, 3), strides=(1, 2))
    model = small_model("C4", SteerableFieldTransformer, out_fields={"vectors": 1}, stem=stem).double()
    x, mask = torch.randn(1, 1, 9, 9, dtype=torch.float64), torch.ones(1, 9, 9, dtype=torch.bool)
    mask[0, :, 5:] = False
    out, poisoned = (model(image, mask=mask).tensor for image in (x, x.masked_fill(~mask[:, None], torch.nan)))
    assert torch.equal(out, poisoned)
    assert out[..., 3:].abs().max() == 0
    assert out[..., :3].abs().min() > 0
    with pytest.raises(ValueError, match="expected a mask of shape"):
        model(x, mask=mask[:, :3])


def test_fields_need_a_number():
    with pytest.raises(ValueError, match="expected scalars, vectors or pseudoscalars, got 0, -1 and 0"):
        SteerableTransformer("C4", in_type={"vectors": -1})


@pytest.mark.parametrize(("side", "strides"), [(9, (2, 2)), (6, (2, 2)), (30, (2, 2, 2)), (13, (1, 3)), (9, (1,)), (8, (2,))])
def test_masks_and_weights_are_those_of_the_pixels_under_tokens(side, strides):
    """A mask or weights that turn with the image leave the logits."""
    stem = partial(convolution_stem, kernel_sizes=(3,) * len(strides), strides=strides)
    model = small_model("C4", num_classes=3, stem=stem).eval()
    x, mask, weights = torch.randn(2, 1, side, side), torch.rand(2, side, side) > 0.3, torch.rand(2, side, side)
    turned, turned_mask, turned_weights = (t.rot90(1, (-2, -1)) for t in (x, mask, weights))
    with torch.no_grad():
        assert relative(model(turned, mask=turned_mask), model(x, mask=mask)) < 1e-5
        assert relative(model(turned, quadrature_weights=turned_weights), model(x, quadrature_weights=weights)) < 1e-5
        assert relative(model(x, quadrature_weights=weights), model(x)) > 1e-3


def test_masks_and_weights_have_the_shape_of_the_image():
    model, x = small_model("C4"), torch.randn(2, 1, 29, 29)
    with pytest.raises(ValueError, match=r"weights of shape \(2, 29, 29\), got \(2, 8, 8\)"):
        model(x, quadrature_weights=torch.rand(2, 8, 8))
    with pytest.raises(ValueError, match="not negative"):
        model(x, quadrature_weights=-torch.rand(2, 29, 29))


def test_clouds_need_a_stem_for_clouds():
    images, points = small_model("C4"), small_model("C4", SteerablePointClassifier)
    cloud = images.in_type(torch.randn(5, 1), torch.randn(5, 2))
    with pytest.raises(TypeError, match="takes images, not a cloud: take a SteerablePointTransformer"):
        images(cloud)
    with pytest.raises(TypeError, match="takes points with coords, not a grid: take a SteerableTransformer"):
        points(images.in_type(torch.randn(1, 1, 5, 5)))
    with pytest.raises(TypeError, match="take stem=SteerableLinear"):
        small_model("C4", SteerablePointClassifier, stem=convolution_stem)(cloud)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        small_model("C4", num_classes=0)


def test_a_band_limit_of_a_finite_group_is_refused():
    with pytest.raises(ValueError, match="max_frequency is for continuous groups: functions on C4 have a value per element"):
        small_model("C4", max_frequency=2)


def test_a_band_limit_of_zero_is_not_the_default():
    assert small_model("SO2", max_frequency=0).blocks.in_type.size == 4
    with pytest.raises(ValueError, match="depth must not be negative, got -1"):
        small_model("SO2", depth=-1)


def test_a_mask_is_refused_by_a_stem_with_attention():
    model = small_model("C4", stem=lifting_stem, block=partial(group_block, num_heads=2))
    x = torch.randn(1, 1, 29, 29)
    model(x)
    with pytest.raises(ValueError, match="not defined for a stem with attention inside"):
        model(x, mask=torch.ones(1, 29, 29, dtype=torch.bool))


def test_shipped_configurations_name_trusted_classes_alone():
    assert build({"_target_": "escnn_attn.Disc", "radius": 2.0}).radius == 2.0
    for target in ("os.system", "escnn_attn.training.train", "escnn.nn.os", "escnn_attn.nn.Disc", "builtins.eval", None):
        with pytest.raises(ValueError, match=r"expected a public name of escnn_attn, a module of escnn\.nn"):
            build({"stem": [{"_target_": target}]})


def test_weights_of_another_class_are_refused():
    with pytest.raises(TypeError, match=r"expected a SteerablePointTransformer in .*, got a SteerableTransformer"):
        SteerablePointTransformer.from_pretrained("rotmnist_50k")


def strided(in_type, out_type):
    """A convolution of escnn's that loses the center of odd sides."""
    return escnn.nn.R2Conv(in_type, out_type, 4, stride=2, padding=1)


def test_an_image_size_is_checked_at_once():
    small_model("C4", image_size=(29, 28))
    small_model("trivial", image_size=29, stem=strided)
    small_model("C4", image_size=28, stem=strided)
    with pytest.raises(ValueError, match="images of 29 × 28 lose their rotation center"):
        small_model("C4", image_size=(29, 28), stem=strided)


def test_the_check_of_a_network_for_clouds_turns_clouds():
    """A bias that sees the axes passes quarter turns of a grid, and is caught on a cloud."""

    class Axes(PositionEmbedding):
        def bias(self, x_query, x_key):
            return -(x_query[:, :, None] - x_key[:, None]).abs().sum(-1)[:, None]

    good = small_model("SO2", SteerablePointClassifier, block=EXACT)
    good.check_equivariance()
    bad = small_model("SO2", SteerablePointClassifier, block=partial(EXACT, position=Axes))
    with pytest.raises(AssertionError, match="not equivariant"):
        bad.check_equivariance()
    stem = partial(convolution_stem, kernel_sizes=(3,), strides=(3,))
    small_model("C4", stem=stem).check_equivariance()


def test_a_network_in_a_chain_gets_its_batch():
    model = small_model("C4", SteerablePointTransformer, in_type={"vectors": 1}, out_fields={"vectors": 1})
    x, batch = cloud(model.in_type), torch.arange(23) % 2
    x = model.in_type(x.tensor.float(), x.coords.float())
    chain = SequentialModule(model, SteerableLinear(model.out_type, model.out_type))
    assert relative(chain(x, batch=batch).tensor, chain[1](model(x, batch=batch)).tensor) < 1e-6


def test_invariants_are_those_of_the_logits():
    model = small_model("C4", SteerablePointClassifier, in_type={"scalars": 1}, num_classes=3)
    x, batch = cloud(model.in_type), torch.arange(23) % 2
    x = model.in_type(x.tensor.float(), x.coords.float())
    assert torch.equal(model.readout(model.invariants(x, batch=batch)), model(x, batch=batch))
