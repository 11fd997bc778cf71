"""How runs end: by signals, limits of time, a loss that is not finite."""

import json
import logging
import math
import os
import signal
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from escnn_attn.analysis import describe
from escnn_attn.training import RequireFiniteLoss
from escnn_attn.training.main import _quiet_lightning
from escnn_attn.training.run import ended_by_termination
from tests.training.runs import run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

HERE = "tests.training.test_ends"


class Terminate(pl.Callback):
    """Sends SIGTERM to the process in a stage."""

    def __init__(self, stage):
        self.stage = stage

    def on_train_batch_end(self, trainer, *_):
        if self.stage == "train" and trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_test_batch_end(self, *_):
        if self.stage == "test":
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("stage", ["train", "test"])
def test_a_terminated_run_has_its_exit_status_and_can_be_resumed(tmp_path, capsys, stage):
    with pytest.raises(SystemExit) as ended, ended_by_termination():
        run(tmp_path, f"+callbacks.stop={{_target_: {HERE}.Terminate, stage: {stage}}}")
    assert ended.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "checkpoints" / "interrupted.ckpt").exists() == (stage == "train")
    assert stage == "test" or f"resume=true hydra.run.dir={tmp_path}" in capsys.readouterr().out
    assert run(tmp_path, "resume=true")["finished"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


class Poison(pl.Callback):
    """Makes a weight NaN before a step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 4:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(math.nan)


def test_a_loss_that_is_nan_is_named_at_its_step_and_recorded(tmp_path, capsys):
    poison = f"+callbacks.poison={{_target_: {HERE}.Poison}}"
    with pytest.raises(FloatingPointError, match="expected a finite training loss, got nan at step 4, in epoch 1"):
        run(tmp_path, poison)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["finished"]
    assert "at step 4" in results["error"]
    assert "at step 4" in describe(results)
    assert run(tmp_path, poison, "resume=true")["error"] == results["error"]
    assert "finished before" in capsys.readouterr().out


def test_losses_on_gpus_are_read_once_in_a_while():
    seen = RequireFiniteLoss(every=3)
    strategy = SimpleNamespace(root_device=torch.device("cuda"), reduce=lambda losses, **_: losses)
    trainer = SimpleNamespace(strategy=strategy, current_epoch=2)
    seen.on_train_start(trainer, None)

    def step(index, loss):
        trainer.fit_loop = SimpleNamespace(total_batch_idx=index)
        seen.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, index)

    step(0, 1.0)
    step(1, math.nan)
    with pytest.raises(FloatingPointError, match="got nan at step 1, in epoch 2"):
        step(2, 1.0)
    step(3, 2.0)
    for index, look in enumerate((seen.on_validation_start, seen.on_train_epoch_end), start=4):  # before checkpoints
        step(index, math.inf)
        with pytest.raises(FloatingPointError, match=f"got inf at step {index}, in epoch 2"):
            look(trainer, None)


def test_a_limit_of_time_says_so(tmp_path, capsys):
    results = run(tmp_path, "epochs=1000", "trainer.max_time='00:00:00:01'", "test=false")
    assert "stopped by trainer.max_time=00:00:00:01 after" in capsys.readouterr().out
    assert "of 1000 epochs" in results["stopped"]


def test_a_run_without_test_shows_its_validation(tmp_path, capsys):
    results = run(tmp_path, "epochs=1", "test=false")
    assert f"validation {results['validation']:.4g}" in capsys.readouterr().out
    assert results["weights"] == "averaged"


def test_a_run_without_validation_ends_with_its_tests(tmp_path):
    results = run(tmp_path, "epochs=1", "trainer.limit_val_batches=0", "callbacks.averaged_weights=null")
    assert "validation" not in results
    assert set(results["test"]) == {"test", "moved"}
    assert results["weights"] == "last"


def test_the_report_of_a_profiler_is_shown_among_silenced_messages():
    with _quiet_lightning():
        assert logging.getLogger("pytorch_lightning.profilers.profiler").isEnabledFor(logging.INFO)
        assert not logging.getLogger("pytorch_lightning.trainer").isEnabledFor(logging.INFO)


def test_losses_on_gpus_are_read_where_a_training_ends_within_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(RequireFiniteLoss, "on_train_start", lambda seen, *_: setattr(seen, "_steps", 50))
    with pytest.raises(FloatingPointError, match="got nan at step 4, in epoch 1"):
        run(tmp_path, f"+callbacks.poison={{_target_: {HERE}.Poison}}", "trainer.max_steps=5")


def test_a_loss_that_another_process_finds_is_seen_by_all():
    seen, reduced = RequireFiniteLoss(), []
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda x, **_: reduced.append(x) or x * math.nan)
    trainer = SimpleNamespace(
        strategy=strategy, current_epoch=0, is_last_batch=False, fit_loop=SimpleNamespace(total_batch_idx=0)
    )
    seen.on_train_start(trainer, None)
    with pytest.raises(FloatingPointError, match="step 0"):
        seen.on_train_batch_end(trainer, None, {"loss": torch.tensor(1.0)}, None, 0)
    assert len(reduced) == 1
