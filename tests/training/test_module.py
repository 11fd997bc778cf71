"""Modules from built networks and from configurations: attributes, checkpoints, predictions."""

import copy
import json

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from escnn_attn import SteerableTransformer
from escnn_attn.data import Digits, point_batch
from escnn_attn.training import CloudRegression, ImageClassifier, load_module
from tests.helpers import relative

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

IMAGES = {"_target_": "escnn_attn.SteerableTransformer", "group": "SO2", "channels": 2, "max_frequency": 1, "depth": 1}
POINTS = {
    **IMAGES,
    "_target_": "escnn_attn.SteerablePointTransformer",
    "group": "O2",
    "in_type": {"scalars": 1, "vectors": 1},
    "out_fields": {"vectors": 1},
}


def trainer(**options) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(accelerator="cpu", **{**quiet, **options})


def built() -> SteerableTransformer:
    return SteerableTransformer("SO2", channels=2, max_frequency=1, depth=1)


def checkpoint(module, path):
    """Writes a checkpoint of a module after two steps."""
    images = TensorDataset(torch.rand(8, 1, 29, 29), torch.randint(10, (8,)))
    fitted = trainer(max_steps=2, limit_val_batches=0, enable_checkpointing=True, default_root_dir=path.parent)
    fitted.fit(module, DataLoader(images, batch_size=4))
    fitted.save_checkpoint(path)
    return module.eval()


def test_hyper_parameters_are_attributes():
    arguments = {"learning_rate": 0.1, "weight_decay": 0.2, "warmup": 0.3, "test_sets": ("a", "b")}
    for module in (ImageClassifier(built(), label_smoothing=0.4, **arguments), CloudRegression(POINTS, **arguments)):
        assert {name: getattr(module, name) for name in arguments} == arguments
        assert set(arguments) < set(module.hparams)
    assert ImageClassifier(built(), label_smoothing=0.4).label_smoothing == 0.4


@pytest.mark.parametrize("config", [IMAGES, OmegaConf.create(IMAGES)])
def test_a_checkpoint_of_a_configured_network_is_self_contained(tmp_path, config):
    module = checkpoint(ImageClassifier(config, augmentation={"degrees": 180}), tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)["hyper_parameters"]
    assert stored["model"] == IMAGES
    x = torch.rand(2, 1, 29, 29)
    for loaded in (load_module(tmp_path / "a.ckpt"), ImageClassifier.load_from_checkpoint(tmp_path / "a.ckpt").cpu().eval()):
        assert relative(loaded(x), module(x)) < 1e-6
        assert loaded.augmentation.degrees == 180


def test_a_checkpoint_of_a_built_network_needs_it_again(tmp_path):
    module = checkpoint(ImageClassifier(built(), learning_rate=0.1), tmp_path / "a.ckpt")
    assert "model" not in torch.load(tmp_path / "a.ckpt", weights_only=True)["hyper_parameters"]
    with pytest.raises(ValueError, match=r"expected model=.*trained from a built network"):
        load_module(tmp_path / "a.ckpt")
    loaded, x = load_module(tmp_path / "a.ckpt", model=built()), torch.rand(2, 1, 29, 29)
    assert relative(loaded(x), module(x)) < 1e-6
    assert loaded.learning_rate == 0.1


class Own(ImageClassifier):
    """A user's module."""


def stored_at(path, **changes):
    """A checkpoint with other hyper-parameters."""
    stored = checkpoint(ImageClassifier(IMAGES), path) and torch.load(path, weights_only=True)
    stored["hyper_parameters"] |= changes
    torch.save(stored, path)
    return path


def test_a_checkpoint_of_a_loaded_module_is_self_contained_too(tmp_path):
    checkpoint(ImageClassifier(IMAGES), tmp_path / "a.ckpt")
    checkpoint(load_module(tmp_path / "a.ckpt").train(), tmp_path / "b.ckpt")
    assert torch.load(tmp_path / "b.ckpt", weights_only=True)["hyper_parameters"]["model"] == IMAGES


def test_names_in_a_checkpoint_that_are_not_trusted_are_refused_before_anything_is_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')")
    path = stored_at(tmp_path / "a.ckpt", _target_="canary.Module")
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of a SupervisedModule, one of \[.*ImageClassifier.*, got canary"
    ):
        load_module(path)
    path = stored_at(tmp_path / "b.ckpt", model={**IMAGES, "block": {"_target_": "canary.run"}})
    for load in (load_module, ImageClassifier.load_from_checkpoint):
        with pytest.raises(ValueError, match=r"expected a public name of escnn_attn.* got 'canary\.run'"):
            load(path)
    (tmp_path / "config.json").write_text(json.dumps({"model": {**IMAGES, "block": {"_target_": "canary.run"}}}))
    with pytest.raises(ValueError, match=r"expected a public name of escnn_attn.* got 'canary\.run'"):
        ImageClassifier.from_pretrained(tmp_path, ("test",))


def test_a_module_of_a_user_is_loaded_where_it_is_trusted(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoint(Own(IMAGES), path)
    with pytest.raises(ValueError, match=r"got .*\.Own in .*a\.ckpt: see trust"):
        load_module(path)
    assert type(load_module(path, trust=[Own])) is Own


def test_damaged_checkpoints_are_named(tmp_path):
    path = tmp_path / "a.ckpt"
    for content in (b"", b"garbage", b"PK"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"expected a checkpoint, got the damaged file .*a\.ckpt"):
            load_module(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of a SupervisedModule in .*a\.ckpt, got one without hyper_param"
    ):
        load_module(path)
    stored = torch.load(stored_at(path), weights_only=True)
    stored["state_dict"]["model.readout.bias"][0] = float("inf")
    torch.save(stored, path)
    with pytest.raises(ValueError, match=r"expected finite weights in .*a\.ckpt, got NaN or infinity in model\.readout\.bias"):
        load_module(path)


def test_predictions_are_logits_for_images_with_and_without_labels():
    module, images = ImageClassifier(built()), torch.rand(6, 1, 29, 29)
    for data in (TensorDataset(images, torch.zeros(6, dtype=torch.long)), TensorDataset(images), images):
        found = trainer().predict(module, DataLoader(data, batch_size=4))
        assert [len(batch) for batch in found] == [4, 2]
        with torch.no_grad():
            torch.testing.assert_close(torch.cat(found), module.eval()(images))
    by_set = trainer(limit_predict_batches=1).predict(module, Digits())
    assert [batch.shape for (batch,) in by_set] == [(256, 10), (256, 10)]


def test_predictions_are_vectors_for_clouds_with_and_without_displacements():
    module = CloudRegression(POINTS)
    clouds = [(torch.randn(n, 3), torch.randn(n, 2), torch.randn(n, 2)) for n in (3, 2, 4)]
    with_targets, without = (
        trainer().predict(module, DataLoader(data, batch_size=2, collate_fn=point_batch))
        for data in (clouds, [cloud[:2] for cloud in clouds])
    )
    assert [batch.shape for batch in with_targets] == [(5, 2), (4, 2)]
    torch.testing.assert_close(with_targets, without)
    with pytest.raises(TypeError, match="clouds with displacements"):
        module.shared_step("train", point_batch([cloud[:2] for cloud in clouds]))


@pytest.mark.slow
@pytest.mark.parametrize("make", [built, lambda: IMAGES], ids=["built", "configured"])
def test_spawned_processes_train_what_travels_to_them_by_pickle(make):
    """Two processes of Lightning's `ddp_spawn` take the step of one process on the whole batch."""
    images = TensorDataset(torch.rand(4, 1, 29, 29), torch.randint(10, (4,)))
    module = ImageClassifier(make())
    alone, start = copy.deepcopy(module), copy.deepcopy(module.state_dict())
    options = {"max_epochs": 1, "limit_val_batches": 0}
    trainer(**options).fit(alone, DataLoader(images, batch_size=4))
    trainer(**options, strategy="ddp_spawn", devices=2).fit(module, DataLoader(images, batch_size=2))
    for name, value in module.named_parameters():
        assert torch.allclose(value, alone.get_parameter(name), rtol=0, atol=1e-5), name
    assert not torch.equal(module.model.readout.weight, start["model.readout.weight"])


def test_images_without_labels_are_refused_in_training():
    module = ImageClassifier(nn.Flatten())
    with pytest.raises(TypeError, match="expected a batch of images and labels, got a Tensor without labels"):
        module.shared_step("train", torch.rand(2, 1, 2, 5))
