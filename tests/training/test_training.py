"""Short trainings on a handful of digits: averaging, checkpoints, resuming and evaluation."""

import json
from pathlib import Path

import escnn.nn
import pytest
import pytorch_lightning as pl
import torch

from escnn_attn import SteerableTransformer, field_type, fourier_type, planar_gspace
from escnn_attn.data import Digits
from escnn_attn.training import (
    AveragedWeights,
    ImageClassifier,
    InterruptedCheckpoint,
    SeedSteps,
    evaluate,
    load_module,
    publish,
)
from tests.helpers import relative

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

MODEL = {
    "_target_": "escnn_attn.SteerableTransformer",
    "group": "SO2",
    "channels": 2,
    "max_frequency": 1,
    "depth": 1,
    "block": {"_target_": "escnn_attn.steerable_block", "_partial_": True, "num_heads": 1, "dropout": 0.1},
}


class FewDigits(Digits):
    """64 digits to train on, 32 for each other set."""

    def arrays(self):
        return {
            name: (x[: 64 if name == "train" else 32], y[: 64 if name == "train" else 32])
            for name, (x, y) in super().arrays().items()
        }


def fit(folder: Path, epochs: int, stop_after: int | None = None, ckpt_path: str | None = None, **options):
    """Trains for `epochs`, or stops after some of them as if the process had died; returns module and trainer."""
    pl.seed_everything(0, verbose=False)
    module = ImageClassifier(MODEL, test_sets=("upright", "rotated"))
    checkpoint = pl.callbacks.ModelCheckpoint(dirpath=folder, filename="last", enable_version_counter=False)
    callbacks = [AveragedWeights(0.9), SeedSteps(0), checkpoint, *options.pop("callbacks", [])]
    if stop_after is not None:
        callbacks.append(Stop(stop_after))
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=callbacks, logger=False, accelerator="cpu", gradient_clip_val=1.0,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, **options,
    )  # fmt: skip
    trainer.fit(module, FewDigits(batch_size=16), ckpt_path=ckpt_path)
    return module, trainer


class Stop(pl.Callback):
    def __init__(self, after):
        self.after = after

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.after:
            trainer.should_stop = True
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step
            raise KeyboardInterrupt


class AverageByHand(pl.Callback):
    """Keeps its own average, and compares each validation with a fresh model that holds it."""

    def __init__(self, decay):
        self.decay, self.steps, self.average, self.errors, self.unaveraged = decay, 0, None, [], []

    def on_train_batch_end(self, trainer, pl_module, *batch):
        current = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        if self.average is None:
            self.average = current
        decay = self.decay(self.steps)
        self.average = {name: decay * a + (1 - decay) * current[name] for name, a in self.average.items()}
        self.current, self.steps = current, self.steps + 1

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        output = pl_module(batch[0])
        self.errors.append(relative(output, self.output_of(self.average, batch[0])))
        self.unaveraged.append(relative(output, self.output_of(self.current, batch[0])))

    def output_of(self, parameters, images):
        fresh = ImageClassifier(MODEL)
        fresh.load_state_dict(parameters, strict=False)
        return fresh.eval()(images)


def train_with(averaging, decay, folder) -> AverageByHand:
    compare = AverageByHand(decay)
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=3, callbacks=[averaging, compare], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(ImageClassifier(MODEL), FewDigits(batch_size=16))
    return compare


def test_validation_output_is_that_of_a_fresh_model_with_the_averaged_weights(tmp_path):
    compare = train_with(AveragedWeights(0.5), lambda steps: min(0.5, (1 + steps) / (10 + steps)), tmp_path)
    assert compare.steps == 12  # both branches of the decay, which is 0.5 from the ninth on
    assert len(compare.errors) == 3
    assert max(compare.errors) < 1e-5
    assert min(compare.unaveraged) > 1e-3


def test_lightnings_own_averaging_is_right_too(tmp_path):
    averaging = pl.callbacks.EMAWeightAveraging(decay=0.9, use_buffers=False)
    compare = train_with(averaging, lambda steps: 0.9, tmp_path)
    assert max(compare.errors) < 1e-5
    assert min(compare.unaveraged) > 1e-3


def test_a_decay_that_is_none():
    with pytest.raises(ValueError, match=r"expected a decay in \[0, 1\), got 1"):
        AveragedWeights(1)


def test_an_interruption_in_validation_does_not_mistake_average_and_current(tmp_path):
    class Interrupt(pl.Callback):
        def on_validation_batch_end(self, trainer, *_):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    last_words = InterruptedCheckpoint(tmp_path)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, epochs=3, callbacks=[Interrupt(), last_words])
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, epochs=3, stop_after=2)
    whole = torch.load(tmp_path / "last.ckpt", weights_only=True)
    broken = torch.load(tmp_path / "interrupted.ckpt", weights_only=True)
    name = "model.readout.weight"
    for key in ("state_dict", "current_model_state"):
        assert relative(broken[key][name], whole[key][name]) < 1e-6
    assert relative(broken["state_dict"][name], broken["current_model_state"][name]) > 1e-3


def test_a_finished_run_can_be_resumed_for_more_epochs(tmp_path):
    fit(tmp_path, epochs=2)
    _, trainer = fit(tmp_path, epochs=3, ckpt_path=str(tmp_path / "last.ckpt"))
    assert trainer.current_epoch == 3


def test_a_finished_run_that_is_resumed_ends_with_averaged_weights_too(tmp_path):
    finished, _ = fit(tmp_path, epochs=2)
    again, _ = fit(tmp_path, epochs=2, ckpt_path=str(tmp_path / "last.ckpt"))
    for name, value in finished.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, msg=name)


def test_a_resumed_run_gives_the_metrics_of_an_unbroken_one(tmp_path):
    whole, trainer = fit(tmp_path / "whole", epochs=4)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path / "broken", epochs=4, stop_after=2)
    resumed, again = fit(tmp_path / "broken", epochs=4, ckpt_path=str(tmp_path / "broken" / "last.ckpt"))
    assert again.current_epoch == 4
    for name, value in trainer.callback_metrics.items():
        assert again.callback_metrics[name] == pytest.approx(value.item(), abs=1e-6), name
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_checkpoints_load_alone_with_weights_only(tmp_path):
    module, _ = fit(tmp_path, epochs=1)
    path = tmp_path / "last.ckpt"
    assert torch.load(path, weights_only=True)["hyper_parameters"]["model"]["group"] == "SO2"
    loaded = ImageClassifier.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
    x = torch.rand(2, 1, 29, 29)
    assert relative(loaded(x), module.eval()(x)) < 1e-6


def test_evaluation_of_a_checkpoint(tmp_path):
    module, trainer = fit(tmp_path, epochs=1)
    data = FewDigits()
    results = evaluate(load_module(tmp_path / "last.ckpt", test_sets=data.test_sets), "digits", data)
    expected = trainer.test(module, data, verbose=False)
    assert results["test"]["upright"] == pytest.approx(expected[0]["upright/accuracy"])
    assert results["test"]["rotated"] == pytest.approx(expected[1]["rotated/accuracy"])
    assert results["accuracy_by_angle"][0] == pytest.approx(results["test"]["upright"])
    with pytest.raises(FileNotFoundError, match="expected a checkpoint file"):
        load_module(tmp_path / "none.ckpt")


def test_published_weights_give_the_same_results(tmp_path):
    module, _ = fit(tmp_path / "checkpoints", epochs=1)
    (tmp_path / "results.json").write_text(json.dumps({"model": MODEL, "data": "digits"}))
    publish(tmp_path, tmp_path / "published")
    x, data = torch.rand(2, 1, 29, 29), FewDigits()
    network = SteerableTransformer.from_pretrained(tmp_path / "published")
    assert not network.training
    assert relative(network(x), module.eval()(x)) < 1e-6
    modules = (
        ImageClassifier.from_pretrained(tmp_path / "published", data.test_sets),
        load_module(tmp_path / "checkpoints" / "last.ckpt", test_sets=data.test_sets),
    )
    found, expected = (evaluate(module, "digits", data) for module in modules)
    assert found == expected
    with pytest.raises(ValueError, match=r"expected one of \[.*, a folder with config.json"):
        SteerableTransformer.from_pretrained("nothing")


class Convolutions(torch.nn.Module):
    """A network of escnn's modules alone."""

    def __init__(self):
        super().__init__()
        space = planar_gspace("C4")
        self.in_type = field_type(space, scalars=1)
        hidden = fourier_type(space, 2)
        self.body = escnn.nn.SequentialModule(
            escnn.nn.R2Conv(self.in_type, hidden, 5, stride=2), escnn.nn.ReLU(hidden), escnn.nn.GroupPooling(hidden)
        )
        self.readout = torch.nn.Linear(2, 10)

    def forward(self, x):
        return self.readout(self.body(self.in_type(x)).tensor.mean((2, 3)))


def test_weights_of_a_network_of_escnns_modules_alone_are_averaged(tmp_path):
    module, seen = ImageClassifier(Convolutions()), []

    class Look(pl.Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *_):
            fresh = Convolutions()
            fresh.load_state_dict({k: v for k, v in pl_module.model.state_dict().items() if k in fresh.train().state_dict()})
            seen.append(relative(pl_module(batch[0]), fresh.eval()(batch[0])))

    trainer = pl.Trainer(
        max_epochs=2, callbacks=[AveragedWeights(0.5), Look()], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, FewDigits(batch_size=16))
    assert len(seen) == 2
    assert max(seen) < 1e-6
