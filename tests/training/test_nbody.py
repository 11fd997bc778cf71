"""Training and evaluation on charged particles, by command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from escnn_attn.data import AugmentedNBody, NBody, SimulationConfig, point_batch
from escnn_attn.data.nbody import point_dataset
from escnn_attn.training import AbsoluteCloudRegression, CloudRegression, evaluate, load_module

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

ROOT = Path(__file__).parents[2]
FEW = SimulationConfig(num_train=60, num_validation=20, num_test=30)


def test_the_models_compared_have_equally_many_parameters():
    sizes = []
    for experiment, kind, data in (
        ("nbody", CloudRegression, NBody),
        ("nbody_baseline", AbsoluteCloudRegression, NBody),
        ("nbody_augmented", AbsoluteCloudRegression, AugmentedNBody),
    ):
        with initialize_config_module("escnn_attn.conf", version_base="1.3"):
            config = compose("train", overrides=[f"experiment={experiment}"])
        module = instantiate(config.module, _recursive_=False, _convert_="all")
        assert (type(module), type(instantiate(config.data))) == (kind, data)
        module(point_batch([point_dataset(FEW.clouds()["test"])[0]]))
        sizes.append(sum(p.numel() for p in module.parameters()))
    assert max(sizes) < 1.02 * min(sizes)


def run(*overrides: str) -> str:
    command = [sys.executable, "scripts/train.py", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_end_with_a_table_and_a_picture(shipped, tmp_path):
    # ++ because a sweep over experiments first composes without any, for digits
    few = [
        f"++data.{key}"
        for key in ("train_size=60", *(f"simulation.num_{name}" for name in ("train=60", "validation=20", "test=30")))
    ]
    small = ["model.channels=4", "model.depth=1", "epochs=2", "threads=1", *few]
    shown = run("-m", "experiment=nbody,nbody_baseline", *small, f"hydra.sweep.dir={tmp_path}")
    assert "test error" in shown
    assert "moved error" in shown
    assert "accuracy" not in shown
    results = {r["name"]: r for r in (json.loads(path.read_text()) for path in tmp_path.glob("*/results.json"))}
    assert set(results) == {"nbody_steerable", "nbody_plain"}
    steerable, plain = results["nbody_steerable"]["test"], results["nbody_plain"]["test"]
    assert steerable["moved"] == pytest.approx(steerable["test"], rel=1e-3)
    assert plain["moved"] != pytest.approx(plain["test"], rel=1e-3)
    checkpoints = {name: next(tmp_path.glob(f"*_{name}/checkpoints/last.ckpt")) for name in results}
    data = NBody(60, FEW)
    evaluated = evaluate(load_module(checkpoints["nbody_plain"], test_sets=data.test_sets), "plain", data)
    assert evaluated["test"] == pytest.approx(plain, rel=1e-5)
    assert evaluated["metric"] == "error"
    picture = tmp_path / "nbody.png"
    named = [f"checkpoints.{name}={path}" for name, path in checkpoints.items()]
    script = [sys.executable, "scripts/plot_nbody.py"]
    subprocess.run([*script, *named, f"picture={picture}"], cwd=ROOT, check=True, capture_output=True)
    assert picture.stat().st_size > 10_000
    refused = subprocess.run([*script, f"picture={picture}"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert "expected checkpoints.<name>=" in refused.stderr
