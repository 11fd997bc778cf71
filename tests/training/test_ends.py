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
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")), current_epoch=2, is_last_batch=False)
    seen.on_train_start(trainer, None)
    for step, loss in enumerate([1.0, math.nan, 1.0, 2.0, math.inf]):
        trainer.fit_loop, trainer.is_last_batch = SimpleNamespace(total_batch_idx=step), step == 4
        if step in (2, 4):
            with pytest.raises(
                FloatingPointError, match=f"got {'nan' if step == 2 else 'inf'} at step {1 if step == 2 else 4}, in epoch 2"
            ):
                seen.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, step)
        else:
            seen.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, step)


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
