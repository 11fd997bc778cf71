"""The commands as a user runs them: multirun, DDP, precision, interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

SMALL = ["model.channels=2", "model.depth=1", "model.max_frequency=1", "epochs=2", "threads=1"]


def run(*overrides: str, fails: bool = False) -> subprocess.CompletedProcess:
    given = {override.split("=")[0] for override in overrides}
    few = ["data.batch_size=500", "angle_images=5", "threads=1"]
    return command("train", *overrides, *[s for s in [*SMALL, *few] if s.split("=")[0] not in given], fails=fails)


def command(script: str, *overrides: str, fails: bool = False) -> subprocess.CompletedProcess:
    arguments = [sys.executable, f"scripts/{script}.py", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(arguments, check=False, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_a_multirun_ends_with_a_table_and_a_picture(tmp_path):
    done = run("-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    assert "rotated %" in done.stdout
    assert (tmp_path / "accuracy_by_angle.png").stat().st_size > 1000
    assert len(list(tmp_path.glob("*/results.json"))) == 2


@pytest.mark.slow
def test_an_evaluation_on_denser_tokens_and_turned_copies(tmp_path):
    options = "pretrained=rotmnist_50k", "angle_images=20"
    command("evaluate", *options, f"output={tmp_path / 'plain'}")
    command("evaluate", *options, "refine=2", "turns=2", f"output={tmp_path / 'better'}")
    before, after = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("plain", "better"))
    assert max(after["change_by_angle"]) < 0.8 * max(before["change_by_angle"])
    assert after["test"]["rotated"] > 0.95


@pytest.mark.slow
def test_precision_and_steps_are_keys_of_the_trainer(tmp_path):
    run("trainer.precision=bf16-mixed", "trainer.max_steps=3", f"hydra.run.dir={tmp_path}")
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 3
    assert json.loads((tmp_path / "results.json").read_text())["accuracy_by_angle"]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [("trainer.devices=2",), ("trainer=ddp", "trainer.accelerator=cpu")])
def test_two_processes_train_together(tmp_path, overrides):
    run(*overrides, f"hydra.run.dir={tmp_path}")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["epochs"] == 2
    assert 0 <= results["test"]["rotated"] <= 1


@pytest.mark.slow
def test_an_interrupted_run_leaves_a_checkpoint_to_resume_from(tmp_path):
    command = [sys.executable, "scripts/train.py", *SMALL, "epochs=500", "data.batch_size=100", f"hydra.run.dir={tmp_path}"]
    root = Path(__file__).parents[2]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background inherits to ignore it
    process = subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=listen,  # noqa: PLW1509 (torch runs no threads here)
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoints" / "last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    checkpoint = tmp_path / "checkpoints" / "interrupted.ckpt"
    assert checkpoint.exists(), output
    assert f"resume=true hydra.run.dir={tmp_path}" in output
    assert process.returncode != 0
    stored = torch.load(checkpoint, weights_only=True)
    epoch = stored["epoch"]
    assert 0 < stored["callbacks"]["Timer"]["time_elapsed"]["train"] < 200
    stored["callbacks"]["Timer"]["time_elapsed"]["train"] = 600.0
    torch.save(stored, checkpoint)
    done = run(f"ckpt_path={checkpoint}", f"epochs={epoch + 2}", "data.batch_size=100", f"hydra.run.dir={tmp_path}/again")
    assert "rotated" in done.stdout
    assert json.loads((tmp_path / "again" / "results.json").read_text())["minutes"] > 10  # both runs count


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(tmp_path):
    options = ("resume=true", f"hydra.run.dir={tmp_path}", "epochs=1", "test=false", "angle_images=0")
    run(*options)
    before = (tmp_path / "results.json").stat().st_mtime_ns
    assert "finished before: steerable" in run(*options).stdout
    assert (tmp_path / "results.json").stat().st_mtime_ns == before
    refused = run(*options, "module.learning_rate=0.5", fails=True)
    assert "module.learning_rate=0.003 there, 0.5 now" in refused.stderr
    again = run(*options, "test=true")  # nothing is left to train after the checkpoint, but to test
    assert "Epoch 0" not in again.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["finished"]
    assert set(results["test"]) == {"upright", "rotated"}
