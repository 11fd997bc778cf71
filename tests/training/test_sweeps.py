"""Sweeps with runs that fail."""

import json
import os
import sys

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf

from escnn_attn.analysis import read_runs
from escnn_attn.analysis.report import ComparisonReport, labels
from escnn_attn.commands.compare import main as compare
from escnn_attn.training.main import train_command
from tests.training.runs import SMALL

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class FailAtSeed(pl.Callback):
    def __init__(self, seed, now):
        self.fails = seed == now

    def on_train_start(self, trainer, pl_module):
        if self.fails:
            raise RuntimeError("of my own")


def sweep(folder, monkeypatch, *overrides):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *SMALL, "epochs=1", f"hydra.sweep.dir={folder}", *overrides])
    train_command()


def test_a_failed_run_leaves_the_others_their_table(tmp_path, monkeypatch, capfd):
    fails = f"+callbacks.fails={{_target_: {__name__}.FailAtSeed, seed: 0, now: ${{seed}}}}"
    with pytest.raises(SystemExit) as ended:
        sweep(tmp_path, monkeypatch, "seed=0,1", fails)
    assert str(ended.value) == "runs that failed:\n  0_nbody_steerable: RuntimeError: of my own"
    assert "moved error" in capfd.readouterr().out
    results, failures = read_runs(tmp_path)
    assert [r["seed"] for r in results] == [1]
    assert failures == {"0_nbody_steerable": "RuntimeError: of my own"}
    sweep(tmp_path, monkeypatch, "seed=0,1", "resume=true")
    assert read_runs(tmp_path).failures == {}


def result(name, **values):
    return {
        "name": name, "seed": 0, "parameters": 1, "minutes": 1.0, "metric": "error", "validation": 0.5, "overrides": [],
        "samples": 10, "finished": True, "test": {"test": 0.5},
    } | values  # fmt: skip


def test_what_runs_left_is_read_whatever_became_of_them(tmp_path, capsys, monkeypatch):
    written = {"a": result("a"), "b": {"error": "nan at step 3", "finished": True}, "c": result("c")}
    for name, values in written.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(values))
    os.truncate(tmp_path / "c" / "results.json", 20)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "settings.json").write_text("{}")
    (tmp_path / "other").mkdir()
    results, failures = read_runs(tmp_path)
    assert [r["name"] for r in results] == ["a"]
    assert failures["b"] == "nan at step 3"
    assert "expected JSON, got the damaged file" in failures["c"]
    assert failures["d"] == "interrupted: no results"
    assert set(failures) == {"b", "c", "d"}
    monkeypatch.setattr(sys, "argv", ["compare.py", f"folder={tmp_path}"])
    compare()
    shown = capsys.readouterr().out
    assert "left out b: nan at step 3" in shown
    assert "| a | 1 | 0.5 | 0.5 | 1 | 1.0 |" in shown


def test_the_best_parameters_of_a_sweeper_are_printed(tmp_path, capsys):
    (tmp_path / "optimization_results.yaml").write_text("best_params:\n  seed: 3\n")
    ComparisonReport().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert "best_params:\n  seed: 3" in capsys.readouterr().out


def test_runs_of_one_model_have_different_names():
    results = [result("a", overrides=["model=a", "seed=0"]), result("a", overrides=["model=a", "seed=1"])]
    assert labels(results) == ["a seed=0", "a seed=1"]
