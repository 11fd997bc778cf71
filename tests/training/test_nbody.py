"""The charged-particles job: its data, and its command."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from escnn_attn.data.nbody import point_batch, points
from escnn_attn.training import AbsoluteCloudRegression, AugmentedNBody, CloudRegression, NBody, Recipe, load_learner
from escnn_attn.training.run import evaluate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

ROOT = Path(__file__).parents[2]
FEW = Recipe(train=60, validation=20, test=30)


def test_there_are_3000_clouds_to_train_on_and_none_is_in_two_sets(shipped):
    clouds = NBody().clouds()
    sizes = {name: len(part.charges) for name, part in clouds.items()}
    assert sizes == {"train": 3000, "validation": 2000, "test": 2000, "moved": 2000}
    seen = [x.tobytes() for name in ("train", "validation", "test") for x in clouds[name].positions]
    assert len(set(seen)) == 7000
    np.testing.assert_array_equal(clouds["train"].charges, shipped[1]["train"].charges[:3000])
    np.testing.assert_array_equal(NBody(train_size=10).clouds()["test"].positions, clouds["test"].positions)


def test_the_moved_set_is_the_test_set_turned_and_shifted():
    clouds = NBody().clouds()
    test, moved = clouds["test"], clouds["moved"]
    np.testing.assert_array_equal(test.charges, moved.charges)
    # the least-squares matrix of each cloud that takes velocities to velocities
    turns = np.stack([np.linalg.lstsq(v, w, rcond=None)[0].T for v, w in zip(test.velocities, moved.velocities)])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(2), turns.shape), atol=1e-8)
    assert (np.linalg.det(turns) > 0).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(moved.displacements, np.einsum("cij,cpj->cpi", turns, test.displacements), atol=1e-8)
    shifts = moved.positions - np.einsum("cij,cpj->cpi", turns, test.positions)
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1], shifts.shape), atol=1e-8)
    assert shifts[:, 0].std(axis=0) == pytest.approx(3, rel=0.1)
    np.testing.assert_array_equal(NBody(seed=1).clouds()["moved"].positions, moved.positions)


def test_a_batch_is_flattened_clouds():
    data = NBody(60, FEW, batch_size=7)
    data.setup()
    batch = next(iter(data.val_dataloader()))
    clouds = data.clouds()["validation"]
    assert (batch.clouds, batch.features.shape, batch.batch.tolist()) == (
        20,
        (100, 3),
        [i for i in range(20) for _ in range(5)],
    )
    features = np.concatenate([clouds.charges[..., None], clouds.velocities], axis=-1).reshape(100, 3)
    torch.testing.assert_close(batch.features, torch.tensor(features).float())
    torch.testing.assert_close(batch.coords, torch.tensor(clouds.positions).float().reshape(100, 2))
    torch.testing.assert_close(batch.displacements, torch.tensor(clouds.displacements).float().reshape(100, 2))
    assert [b.clouds for b in data.train_dataloader()] == [7] * 8
    assert len(data.test_dataloader()) == len(data.test_sets) == 2


def test_clouds_of_a_batch_may_have_unequal_sizes():
    samples = [(torch.randn(n, 3), torch.randn(n, 2), torch.randn(n, 2)) for n in (3, 1, 4)]
    batch = point_batch(samples)
    assert batch.batch.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert torch.equal(batch.coords[4:], samples[2][1])
    turns = torch.linalg.qr(torch.randn(3, 2, 2))[0]
    turned = batch.turned(turns)
    assert torch.equal(turned.features[:, :1], batch.features[:, :1])
    for before, after in (
        (batch.features[:, 1:], turned.features[:, 1:]),
        (batch.coords, turned.coords),
        (batch.displacements, turned.displacements),
    ):
        torch.testing.assert_close(after[4:], before[4:] @ turns[2].T)
        torch.testing.assert_close(after[3], turns[1] @ before[3])


def test_the_order_of_batches_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        data = NBody(60, FEW, seed=seed, batch_size=10)
        data.setup()
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        torch.rand(1)  # other draws do not matter
        return torch.cat([batch.coords for batch in loader])

    assert torch.equal(order(0, 3), order(0, 3))
    assert not torch.equal(order(0, 3), order(0, 4))
    assert not torch.equal(order(0, 3), order(1, 3))
    assert torch.equal(order(0, 3).sort(dim=0).values, order(1, 4).sort(dim=0).values)


@pytest.mark.parametrize("size", [0, 61])
def test_training_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match=f"expected 1 to 60 training clouds, got {size}"):
        NBody(size, FEW)


def test_the_models_compared_have_equally_many_parameters():
    sizes = []
    for experiment, learner, data in (
        ("nbody", CloudRegression, NBody),
        ("nbody_baseline", AbsoluteCloudRegression, NBody),
        ("nbody_augmented", AbsoluteCloudRegression, AugmentedNBody),
    ):
        with initialize_config_module("escnn_attn.conf", version_base="1.3"):
            config = compose("train", overrides=[f"experiment={experiment}"])
        module = instantiate(config.module, _recursive_=False, _convert_="all")
        assert (type(module), type(instantiate(config.data))) == (learner, data)
        module(point_batch([points(FEW.clouds()["test"])[0]]))
        sizes.append(sum(p.numel() for p in module.parameters()))
    assert max(sizes) < 1.02 * min(sizes)


def run(*overrides: str) -> str:
    command = [sys.executable, "scripts/train.py", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_end_with_a_table_and_a_picture(shipped, tmp_path, monkeypatch):
    # ++ because a sweep over experiments first composes without any, for digits
    few = [f"++data.{key}" for key in ("train_size=60", "recipe.train=60", "recipe.validation=20", "recipe.test=30")]
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
    evaluated = evaluate(load_learner(checkpoints["nbody_plain"], test_sets=data.test_sets), "plain", data)
    assert evaluated["test"] == pytest.approx(plain, rel=1e-5)
    assert evaluated["metric"] == "error"
    script = runpy.run_path(str(ROOT / "scripts" / "plot_nbody.py"))
    monkeypatch.chdir(tmp_path)
    script["main"]([f"{name}={path}" for name, path in checkpoints.items()])
    assert (tmp_path / "docs" / "images" / "nbody.png").stat().st_size > 10_000
    for arguments in ([], [str(checkpoints["nbody_plain"])]):
        with pytest.raises(SystemExit, match=r"plot_nbody\.py steerable="):
            script["main"](arguments)
