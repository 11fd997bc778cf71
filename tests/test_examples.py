"""The examples, in few steps: what they claim of equivariance, learning and equal outputs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from escnn.nn import EquivariantModule

from escnn_attn import InvariantPooling, SteerableSelfAttention, fourier_type, planar_gspace, testing

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"examples.{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_short_say_what_they_teach_and_stand_on_the_page(name):
    source = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(source.splitlines()) <= 90
    assert "You will learn" in example(name).__doc__
    page = (ROOT / "docs" / "examples.md").read_text()
    assert f"python examples/{name}.py" in page
    assert f'--8<-- "examples/{name}.py"' in page


def test_attention_in_escnn_keeps_outputs_until_it_is_trained():
    """And invariance then."""
    module = example("attention_in_escnn")
    gspace = planar_gspace("C8")
    network, extended = module.DigitNetwork(gspace).eval(), module.DigitNetwork(gspace, attention=True).eval()
    left = extended.load_state_dict(network.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert all(name.startswith("attention.") for name in left.missing_keys)
    pixels = torch.rand(2, 1, 29, 29)
    torch.testing.assert_close(extended(pixels), network(pixels))
    torch.nn.init.ones_(extended.attention.attention.gain)
    assert not torch.allclose(extended(pixels), network(pixels))
    torch.testing.assert_close(extended(pixels.rot90(1, (2, 3))), extended(pixels), atol=1e-5, rtol=1e-5)


def test_attention_in_escnn_is_equivariant():
    attention = example("attention_in_escnn").ResidualAttention(fourier_type(planar_gspace("SO2"), 4, 2))
    torch.nn.init.ones_(attention.attention.gain)
    testing.assert_equivariant(attention, size=5)


def test_points_with_vectors_have_equal_errors_on_turned_clouds():
    """Of the steerable network, not of the plain one; both have learned something."""
    errors = example("points_with_vectors").main(steps=6)
    upright, *turned = errors["SO2"]
    assert turned == pytest.approx([upright] * 2, rel=1e-3)
    assert upright < 1
    assert errors["trivial"][2] != pytest.approx(errors["trivial"][0], rel=1e-2)


def test_the_swin_like_backbone_is_equivariant():
    module = example("swin_backbone")
    backbone = module.SwinLike("C4", channels=1, window=1.5)
    testing.assert_equivariant(backbone, domain="grid", size=9, dtype=torch.float64)
    stages = backbone.forward_intermediates(torch.rand(1, 1, 12, 17))
    assert [tuple(x.shape[2:]) for x in stages] == [(6, 9), (3, 5)]
    assert stages[1].type == backbone.out_type


def test_the_swin_like_backbone_has_the_parameters_of_the_ready_made_one():
    module = example("swin_backbone")
    sizes = [sum(p.numel() for p in n.parameters()) for n in (module.Classifier(module.SwinLike("SO2")), module.ready_made())]
    assert sizes[0] == sizes[1]
    assert isinstance(module.Classifier(module.SwinLike("C4")).pool, InvariantPooling)


@pytest.mark.parametrize("name", ["PlanarALiBi", "Pointers"])
def test_position_embeddings_are_equivariant(name):
    module = example("position_embedding")
    fields = fourier_type(planar_gspace("SO2"), 4, 2)
    attention = SteerableSelfAttention(fields, num_heads=2, position=getattr(module, name))
    testing.assert_equivariant(attention, size=5)


def test_pointers_learn_what_a_bias_cannot():
    module = example("position_embedding")
    blind, seeing = (module.train(position, steps=15)[1] for position in (module.PlanarALiBi, module.Pointers))
    assert blind > 0.9
    assert seeing < 0.6


class Conditioned(EquivariantModule):
    """FiLM with one condition for all samples."""

    def __init__(self, film):
        super().__init__()
        self.film, self.in_type, self.out_type = film, film.fields, film.fields

    def forward(self, x):
        return self.film(x, torch.ones(len(x.tensor), 2, dtype=x.tensor.dtype))

    def evaluate_output_shape(self, input_shape):
        return input_shape


def test_film_is_equivariant_and_listens_to_its_condition():
    module = example("action_tokens")
    fields = fourier_type(planar_gspace("O2"), 2, 1)
    film = module.FiLM(fields, condition=2)
    testing.assert_equivariant(Conditioned(film), domain="grid")
    x = fields(torch.randn(2, fields.size, 3, 3))
    assert not torch.allclose(film(x, torch.eye(2)).tensor, film(x, torch.ones(2, 2)).tensor)


@torch.no_grad()
def test_actions_turn_with_the_scene():
    """And depend on the image and on what is told."""
    module = example("action_tokens")
    policy = module.Policy().double().eval()
    (images, position, velocity, told), _ = module.draw(3, torch.Generator().manual_seed(0))
    images, position, velocity, told = (part.double() for part in (images, position, velocity, told))
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    action = policy(images, position, velocity, told)
    turned = policy(images.rot90(1, (2, 3)), position @ turn.T, velocity @ turn.T, told)
    torch.testing.assert_close(turned, action @ turn.T, atol=1e-4, rtol=1e-4)
    for changed in ((images.flip(0), position, velocity, told), (images, position, velocity, told.flip(1))):
        assert not torch.allclose(policy(*changed), action, atol=1e-3)


def test_scenes_turn_as_images_and_actions_do():
    (images, *_, told), action = (module := example("action_tokens")).draw(2, torch.Generator().manual_seed(0))
    (turned_images, *_, same), turned = module.draw(2, torch.Generator().manual_seed(0), degrees=90.0)
    torch.testing.assert_close(turned_images, images.rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(turned, torch.stack([-action[:, 1], action[:, 0]], dim=1), atol=1e-5, rtol=1e-5)
    assert torch.equal(told, same)


@pytest.mark.parametrize("name", ["attention_in_escnn", "swin_backbone"])
def test_classifiers_of_digits_learn(name):
    """A few images by heart; attention that starts as the identity gets a gradient."""
    module = example(name)
    pixels, labels = torch.rand(4, 1, 29, 29), torch.arange(4)
    data = SimpleNamespace(train_dataloader=lambda: [(pixels, labels)])
    if name == "swin_backbone":
        network = module.Classifier(module.SwinLike("C4", channels=1, window=1.5))
    else:
        network = module.DigitNetwork(planar_gspace("C4"), attention=True)
    first = torch.nn.functional.cross_entropy(network(pixels), labels)
    module.train(network, data, steps=8)
    assert torch.nn.functional.cross_entropy(network.train()(pixels), labels) < 0.9 * first
    gains = [layer.gain for layer in network.modules() if isinstance(layer, SteerableSelfAttention)]
    assert all(gain.abs().sum() > 0 for gain in gains)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention_in_escnn", "swin_backbone", "position_embedding"])
def test_examples_run_to_their_end(name, capsys):
    example(name).main(steps=2)
    assert capsys.readouterr().out.count("\n") == {"attention_in_escnn": 8, "swin_backbone": 3, "position_embedding": 2}[name]


@pytest.mark.slow
def test_the_policy_learns():
    errors = example("action_tokens").main(steps=60)
    assert max(errors.values()) < 0.5
    assert max(errors.values()) < 1.1 * min(errors.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:# The axis name")
def test_exported_programs_compute_the_same_on_all_sizes(tmp_path):
    differences = example("export_onnx").main(str(tmp_path))
    assert max(differences.values()) < 1e-5
    assert ("ONNX" in differences) == (tmp_path / "network.onnx").is_file()


@torch.no_grad()
def test_plain_networks_compute_the_same(capsys):
    module = example("export_onnx")
    network = module.SteerableTransformer(
        "C4", channels=2, depth=1, block=module.partial(module.steerable_block, num_heads=1)
    ).eval()
    assert module.compare("plain", network.export(), network) < 1e-5
    assert module.compare("other", lambda images: network(images) + 1, network) == pytest.approx(1, rel=1e-3)
    assert len(re.findall("logits differ", capsys.readouterr().out)) == 4
