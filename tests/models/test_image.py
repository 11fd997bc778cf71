"""Whole networks."""

import copy
import io
from functools import partial

import escnn.nn
import pytest
import torch

from escnn_attn import SteerableFieldTransformer, convolution_stem
from escnn_attn.models import image as models
from escnn_attn.testing import equivariance_error
from tests.helpers import assert_every_parameter_has_gradient, cloud, mixed_type, relative, small_model, worst


@pytest.mark.parametrize("group", ["SO2", "O2", "C8", "D4", "C3", "trivial"])
def test_logits_are_invariant_in_float32(group):
    """29 × 29, random weights: quarter turns and flips, as far as the group has them; of two images alone a logit may cancel."""
    errors = equivariance_error(small_model(group), dtype=torch.float32, size=29, batch=8)
    assert len(errors) == {"SO2": 4, "O2": 8, "C8": 4, "D4": 8, "C3": 1, "trivial": 1}[group]
    assert worst(errors) < 1e-5


def test_the_plain_transformer_is_not_invariant():
    model = small_model("trivial").eval()
    x = torch.randn(1, 1, 29, 29)
    assert relative(model(x.rot90(1, (2, 3))), model(x)) > 1e-2


@pytest.mark.parametrize("group", ["trivial", "D4", "SO2"])
def test_every_parameter_of_the_network_is_trained(group):
    model = small_model(group)
    model(torch.randn(2, 1, 29, 29)).pow(2).sum().backward()
    assert_every_parameter_has_gradient(model)


@pytest.mark.parametrize("group", ["SO2", "D4"])
@pytest.mark.parametrize("saved", ["train", "eval"])
@pytest.mark.parametrize("loaded", ["train", "eval"])
def test_one_state_dict_for_both_modes(group, saved, loaded):
    source, target = small_model(group), small_model(group)
    target(torch.randn(1, 1, 29, 29))
    source.train(saved == "train")
    target.train(loaded == "train")
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    buffer.seek(0)
    target.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(1, 1, 29, 29)
    assert torch.equal(target.eval()(x), source.eval()(x))
    assert source.train().state_dict().keys() == source.eval().state_dict().keys()


@pytest.mark.parametrize("mode", [True, False])
def test_copies_in_either_mode(mode):
    model = small_model("O2").train(mode)
    twin = copy.deepcopy(model)
    x = torch.randn(1, 1, 29, 29)
    assert torch.equal(twin(x), model(x))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert not torch.equal(twin.train().eval()(x), model.eval()(x))


def test_double_on_one_model_leaves_others_alone():
    one, other = small_model("SO2"), small_model("SO2")
    assert one.double()(torch.randn(1, 1, 29, 29).double()).dtype == torch.float64
    assert other(torch.randn(1, 1, 29, 29)).dtype == torch.float32
    assert small_model("SO2")(torch.randn(1, 1, 29, 29)).dtype == torch.float32


@pytest.mark.parametrize(("kernel_size", "padding", "fitting"), [(4, 0, 32), (3, 0, 31), (6, 1, 32), (9, 4, 29)])
def test_the_center_is_that_of_the_windows_of_any_stem(kernel_size, padding, fitting, monkeypatch):
    """Windows of 4 by 4 without padding divide sides of 4 n, of 3 by 3 those of 4 n + 3, and so on."""

    def stem(in_type, out_type):
        return escnn.nn.R2Conv(in_type, out_type, kernel_size, stride=4, padding=padding)

    network = small_model("C4", stem=stem)
    with pytest.raises(ValueError, match=f"resample them to {fitting} × {fitting}"):
        network(torch.randn(1, 1, fitting - 3, fitting - 3))
    assert worst(equivariance_error(network, size=fitting)) < 1e-5
    monkeypatch.setattr(models, "keeps_center", lambda *_: True)
    assert worst(equivariance_error(network, size=fitting - 3)) > 1e-3  # a check that cannot fail shows nothing


def test_poolings_of_a_stem_count():
    def stem(in_type, out_type):
        layers = [escnn.nn.R2Conv(in_type, out_type, 3, padding=1), escnn.nn.PointwiseMaxPool(out_type, 2, 2)]
        return escnn.nn.SequentialModule(*layers)

    with pytest.raises(ValueError, match="resample them to 30 × 30"):
        small_model("C4", stem=stem)(torch.randn(1, 1, 29, 29))
    assert worst(equivariance_error(small_model("C4", stem=stem), size=30)) < 1e-5


def test_a_frozen_stem_takes_up_loaded_weights():
    source, target = small_model("SO2"), small_model("SO2")
    target.stem.eval()
    target.load_state_dict(source.state_dict())
    x = torch.randn(1, 1, 29, 29)
    assert torch.equal(target.eval()(x), source.eval()(x))


def test_autocast_of_the_network():
    model = small_model("SO2").eval()
    x = torch.randn(2, 1, 29, 29)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x)
    assert low.dtype == torch.bfloat16
    assert relative(low.float(), model(x)) < 5e-2


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match=r"expected images \(b, 1, height, width\), or a GeometricTensor, got a tensor \(2, 3"):
        small_model("C4")(torch.randn(2, 3, 29, 29))
    with pytest.raises(TypeError, match="expected a geometric tensor of type"):
        small_model("C4")(cloud(mixed_type("C4")))
    with pytest.raises(TypeError, match="expected a field type on"):
        small_model("C4", SteerableFieldTransformer, out_fields=mixed_type("D4"))
    with pytest.raises(ValueError, match="odd kernel sizes"):
        small_model("C4", stem=partial(convolution_stem, kernel_sizes=(4, 5)))


def test_only_the_central_disc_counts_for_logits():
    model, x = small_model("SO2").eval(), torch.randn(1, 1, 29, 29)
    y = x.clone()
    y[..., 0, 0] = y[..., -1, 1] = 100
    assert torch.equal(model(x), model(y))
