"""Folders of runs: begun anew or resumed, damaged files, two runs at once."""

import csv
import json
import os
import re
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from escnn_attn.training import load_module
from escnn_attn.training.main import train_command
from tests.training.runs import SMALL, run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Interrupt(pl.Callback):
    """Presses Ctrl-C after a batch."""

    def __init__(self, epoch, batch=1):
        self.epoch, self.batch = epoch, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise KeyboardInterrupt


def interrupted(folder, epoch, *overrides):
    callback = f"+callbacks.stop={{_target_: tests.training.test_folders.Interrupt, epoch: {epoch}}}"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(folder, callback, *overrides)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def test_a_second_run_in_a_folder_is_refused_and_not_mixed_with_the_first(tmp_path):
    first = run(tmp_path / "a")
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*.ckpt")}
    with pytest.raises(ValueError, match=r"expected an empty folder, or resume=true, got .*a, which holds"):
        run(tmp_path / "a", "seed=5")
    assert before == {path: path.read_bytes() for path in (tmp_path / "a").rglob("*.ckpt")}
    assert json.loads((tmp_path / "a" / "results.json").read_text())["seed"] == first["seed"] == 0


def test_a_refused_command_writes_nothing_into_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, "epochs=1", f"hydra.run.dir={tmp_path}"])
    train_command()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert OmegaConf.load(tmp_path / "config.yaml").model.channels == 4
    monkeypatch.setattr(sys, "argv", [*sys.argv, "seed=5"])
    with pytest.raises(SystemExit):
        train_command()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_an_interrupted_run_of_another_seed_is_not_continued_unasked(tmp_path):
    interrupted(tmp_path, 0)
    assert not (tmp_path / "results.json").exists()
    with pytest.raises(ValueError, match=r"interrupted\.ckpt"):
        run(tmp_path, "seed=5")
    with pytest.raises(ValueError, match="seed=0 there, 5 now"):
        run(tmp_path, "seed=5", "resume=true")
    for override in ("trainer.precision=64-true", "callbacks.averaged_weights.decay=0.5", "callbacks.averaged_weights=null"):
        with pytest.raises(ValueError, match=override.partition("=")[0]):
            run(tmp_path, override, "resume=true")


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_run_interrupted_within_an_epoch_and_resumed_ends_as_an_unbroken_one(tmp_path, epoch):
    whole = run(tmp_path / "whole")
    interrupted(tmp_path / "broken", epoch)
    assert (tmp_path / "broken" / "checkpoints" / "interrupted.ckpt").exists()
    resumed = run(tmp_path / "broken", "resume=true")
    assert resumed["validation"] == whole["validation"]
    assert resumed["test"] == whole["test"]
    steps = [
        torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] for n in ("whole", "broken")
    ]
    assert steps[0] == steps[1] == 9


def test_epochs_without_validation_leave_a_checkpoint(tmp_path):
    rarely = "trainer.check_val_every_n_epoch=3"
    whole = run(tmp_path / "whole", rarely)
    interrupted(tmp_path / "broken", 2, rarely)
    last = torch.load(tmp_path / "broken" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (1, 6)
    assert run(tmp_path / "broken", rarely, "resume=true")["test"] == whole["test"]


def test_a_resumed_run_appends_to_its_metrics(tmp_path):
    def rows(name):
        with (tmp_path / name / "csv" / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    run(tmp_path / "whole", "trainer.log_every_n_steps=1")
    interrupted(tmp_path / "broken", 2, "trainer.log_every_n_steps=1")
    with (tmp_path / "broken" / "csv" / "metrics.csv").open("a") as file:
        file.write("0.1,0")  # a row that a kill cut short
    run(tmp_path / "broken", "resume=true", "trainer.log_every_n_steps=1")
    assert rows("broken") == rows("whole")
    assert {row["epoch"] for row in rows("whole")} >= {"0", "1", "2"}


def test_a_truncated_last_checkpoint_is_named_and_the_best_taken(tmp_path, capsys):
    whole = run(tmp_path / "whole")
    interrupted(tmp_path / "broken", 2)
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    truncate(last)
    resumed = run(tmp_path / "broken", "resume=true")
    shown = capsys.readouterr().out
    assert f"{last} is damaged" in shown
    assert f"goes on from {last.with_name('best.ckpt')}" in shown
    assert resumed["test"] == whole["test"]


def test_without_a_readable_checkpoint_each_is_named(tmp_path):
    interrupted(tmp_path, 2)
    for name in ("last", "best"):
        truncate(tmp_path / "checkpoints" / f"{name}.ckpt")
    with pytest.raises(ValueError, match=r"expected a whole checkpoint .* got damaged .*last.ckpt, .*best.ckpt"):
        run(tmp_path, "resume=true")
    with pytest.raises(ValueError, match=r"expected a checkpoint, got the damaged file .*last.ckpt"):
        run(tmp_path / "other", f"ckpt_path={tmp_path}/checkpoints/last.ckpt")
    with pytest.raises(ValueError, match=r"expected a checkpoint, got the damaged file .*last.ckpt"):
        load_module(tmp_path / "checkpoints" / "last.ckpt")


def test_a_run_without_its_last_checkpoint_leaves_one_best(tmp_path):
    interrupted(tmp_path, 2)
    (tmp_path / "checkpoints" / "last.ckpt").unlink()
    run(tmp_path, "resume=true")
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "interrupted.ckpt"}


def test_truncated_results_are_named_and_made_again(tmp_path, capsys):
    first = run(tmp_path)
    truncate(tmp_path / "results.json")
    assert run(tmp_path, "resume=true")["test"] == first["test"]
    assert f"{tmp_path / 'results.json'} is damaged" in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())["finished"]


def test_settings_that_are_damaged_or_missing_are_named(tmp_path):
    interrupted(tmp_path, 2)
    truncate(tmp_path / "settings.json")
    with pytest.raises(ValueError, match=r"expected JSON, got the damaged file .*settings.json"):
        run(tmp_path, "resume=true")
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"expected settings.json beside the checkpoints of .*, got none"):
        run(tmp_path, "resume=true")


OTHER = """
import os, sys
from filelock import FileLock
folder = sys.argv[1]
with FileLock(f"{folder}/.lock"):
    with open(f"{folder}/.owner.json", "w") as file:
        file.write(f'"process {os.getpid()} on here since then"')
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_two_runs_in_one_folder_at_once_are_refused_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("escnn_attn.training._folder.PATIENCE", 0.2)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(RuntimeError, match=rf"expected a folder of its own, got {tmp_path}, .* process {other.pid} .* since"):
        run(tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    other.kill()
    other.communicate()
    run(tmp_path, "epochs=1")  # a lock ends with its process


def test_runs_of_one_second_have_different_folders():
    """By microseconds: each process resolves `now` once."""
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        hydra = compose("train", overrides=["name=a"], return_hydra_config=True).hydra
    shown = f"{hydra.run.dir} {hydra.sweep.dir}"
    assert re.fullmatch(r"outputs/[\d-]+_[\d-]+-\d{6}_a outputs/[\d-]+_[\d-]+-\d{6}_sweep", shown.strip())
