"""Short trainings on a handful of clouds: augmentation, resuming, equivariance of the result, the best checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from escnn_attn.data import AugmentedNBody, NBody, SimulationConfig, point_batch, simulate
from escnn_attn.data.nbody import point_dataset
from escnn_attn.training import (
    AbsoluteCloudRegression,
    AveragedWeights,
    BestCheckpoint,
    CloudRegression,
    ImageClassifier,
    SeedSteps,
    load_module,
)
from escnn_attn.training.regression import predict_final_positions
from tests.helpers import relative

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

FEW = SimulationConfig(num_train=60, num_validation=20, num_test=30)
MODEL = {
    "_target_": "escnn_attn.SteerablePointTransformer",
    "group": "O2",
    "in_type": {"scalars": 1, "vectors": 1},
    "out_fields": {"vectors": 1},
    "channels": 4,
    "max_frequency": 1,
    "depth": 1,
    "block": {
        "_target_": "escnn_attn.steerable_block",
        "_partial_": True,
        "num_heads": 2,
        "dropout": 0.1,
        "position": {
            "_target_": "escnn_attn.RotaryEmbedding",
            "_partial_": True,
            "rotary_fraction": 1.0,
            "wavelengths": [2.0, 20.0],
            "tolerance": 1e-6,
        },
    },
}
PLAIN = {**MODEL, "group": "trivial", "in_type": {"scalars": 3, "vectors": 1}, "max_frequency": None}


def trainer_of(folder: Path, epochs: int, *callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), logger=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, enable_checkpointing=any(
            isinstance(c, pl.callbacks.ModelCheckpoint) for c in callbacks
        ),
    )  # fmt: skip


class Watch(pl.Callback):
    """Keeps the batches of each stage, and the metrics of each epoch."""

    def __init__(self):
        self.train, self.validation, self.errors = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.train.append(batch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.validation.append(batch)

    def on_validation_epoch_end(self, trainer, pl_module):
        self.errors.append(trainer.callback_metrics["validation/error"].item())


def fit(data, folder, epochs, *callbacks, model=MODEL, ckpt_path=None, kind=CloudRegression, **options):
    pl.seed_everything(0, verbose=False)
    module = kind(model, test_sets=("test", "moved"), **options)
    trainer = trainer_of(folder, epochs, *callbacks)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module, trainer


def test_augmented_clouds_move_as_physics_says_and_differ_in_each_step(tmp_path):
    watch, plain = Watch(), Watch()
    fit(AugmentedNBody(60, FEW, batch_size=60), tmp_path, 2, watch)
    fit(NBody(60, FEW, batch_size=60), tmp_path, 2, plain)
    for batch, same in zip(watch.train, plain.train):
        x, v, d = (part.double().view(60, 5, 2).numpy() for part in (batch.coords, batch.features[:, 1:], batch.displacements))
        charges = batch.features[:, 0].view(60, 5).numpy()
        ends, _ = simulate(x, v, charges, time=FEW.time, num_steps=FEW.num_steps, softening=FEW.softening)
        np.testing.assert_allclose(ends[-1] - x, d, atol=1e-4)
        assert torch.equal(batch.features[:, 0], same.features[:, 0])
        assert relative(batch.coords.norm(dim=1), same.coords.norm(dim=1)) < 1e-6
        assert relative(batch.coords, same.coords) > 0.5
    # the outermost point of all is the same one in each epoch, elsewhere
    outermost = [batch.coords[batch.coords.norm(dim=1).argmax()] for batch in watch.train]
    assert relative(outermost[0], outermost[1]) > 0.01
    assert all(torch.equal(a.coords, b.coords) for a, b in zip(watch.validation, plain.validation))


def test_a_resumed_run_on_augmented_clouds_gives_the_weights_of_an_unbroken_one(tmp_path):
    class Stop(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    def run(folder, *more, ckpt_path=None):
        last = pl.callbacks.ModelCheckpoint(dirpath=folder, filename="last", enable_version_counter=False)
        data = AugmentedNBody(60, FEW, batch_size=20)
        return fit(data, folder, 4, AveragedWeights(0.9), SeedSteps(0), last, *more, ckpt_path=ckpt_path)[0].state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "broken", Stop())
    resumed = run(tmp_path / "broken", ckpt_path=str(tmp_path / "broken" / "last.ckpt"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, msg=name)


def test_a_short_training_learns_a_handful_of_clouds_and_errs_alike_on_moved_ones(tmp_path):
    model = {**MODEL, "channels": 8, "depth": 2, "block": {**MODEL["block"], "dropout": 0.0}}
    data = NBody(60, FEW, batch_size=10)
    best, watch = BestCheckpoint(str(tmp_path)), Watch()
    module, trainer = fit(data, tmp_path, 25, best, watch, model=model, learning_rate=1e-2)
    train = data.clouds()["train"]
    still, free = np.square(train.displacements).mean(), np.square(train.displacements - FEW.time * train.velocities).mean()
    learnt = np.square(predict_final_positions(module.eval(), train) - train.positions - train.displacements).mean()
    assert learnt < 0.5 * free < 0.5 * still
    test, moved = trainer.test(module, data, verbose=False)
    assert moved["moved/error"] == pytest.approx(test["test/error"], rel=1e-4)
    truth = data.clouds()["test"]
    expected = np.square(predict_final_positions(module.eval(), truth) - truth.positions - truth.displacements).mean()
    assert test["test/error"] == pytest.approx(expected, rel=1e-5)
    assert best.best_model_score == pytest.approx(min(watch.errors))
    assert min(watch.errors) < watch.errors[0]
    again = load_module(best.best_model_path)
    assert type(again) is CloudRegression
    assert not again.training
    batch = watch.validation[0]
    assert again.loss(again(batch), batch.displacements).item() == pytest.approx(min(watch.errors), rel=1e-5)


def test_a_network_without_symmetry_errs_otherwise_on_moved_clouds(tmp_path):
    data = NBody(60, FEW)
    module, trainer = fit(data, tmp_path, 1, model=PLAIN, kind=AbsoluteCloudRegression)
    test, moved = trainer.test(module, data, verbose=False)
    assert moved["moved/error"] != pytest.approx(test["test/error"], rel=1e-2)
    clouds = data.clouds()["test"]
    shifted = clouds._replace(positions=clouds.positions + 1)
    assert not np.allclose(
        predict_final_positions(module.eval(), clouds), predict_final_positions(module, shifted) - 1, atol=1e-2
    )


def test_a_model_for_other_features_is_refused():
    batch = point_batch([point_dataset(FEW.clouds()["test"])[0]])
    with pytest.raises(ValueError, match="expected a model of 3 input channels, got one of 5"):
        CloudRegression(PLAIN)(batch)
    with pytest.raises(ValueError, match="expected a model of 5 input channels, got one of 3"):
        AbsoluteCloudRegression(MODEL)(batch)


def test_data_of_another_task_is_refused():
    batch = point_batch([point_dataset(FEW.clouds()["test"])[0]])
    with pytest.raises(TypeError, match="expected data of images and labels, such as data=digits, got a batch PointBatch"):
        ImageClassifier(MODEL).predict_step(batch, 0)
    with pytest.raises(TypeError, match="expected data of clouds, such as data=nbody, got a batch list"):
        CloudRegression(MODEL).predict_step([torch.randn(2, 1, 29, 29), torch.zeros(2)], 0)


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a checkpoint file, got .*none.ckpt"):
        load_module(tmp_path / "none.ckpt")
    torch.save({"hyper_parameters": {"_target_": "torch.nn.Linear"}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"expected a checkpoint of a SupervisedModule, one of .*, got torch.nn.Linear in"):
        load_module(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"expected a checkpoint of a SupervisedModule, got torch.nn.Linear in"):
        load_module(tmp_path / "other.ckpt", trust=["torch.nn.Linear"])
    with pytest.raises(TypeError, match="expected a SupervisedModule, which has a metric and mode, got LightningModule"):
        BestCheckpoint(str(tmp_path)).setup(pl.Trainer(logger=False), pl.LightningModule(), "fit")


def test_the_best_checkpoint_is_by_what_the_module_states(tmp_path):
    trainer, chosen = trainer_of(tmp_path, 1), []
    for module in (CloudRegression(MODEL), ImageClassifier({"_target_": "torch.nn.Flatten"})):
        best = BestCheckpoint(str(tmp_path))
        best.setup(trainer, module, "fit")
        chosen.append((best.monitor, best.mode))
    assert chosen == [("validation/error", "min"), ("validation/accuracy", "max")]


def test_targets_of_another_shape_are_refused():
    module = CloudRegression(MODEL)
    with pytest.raises(ValueError, match=r"expected predictions of shape \(28, 1\), as the targets, got \(28, 2\)"):
        module.loss(torch.randn(28, 2), torch.randn(28, 1))
