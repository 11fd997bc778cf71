"""The command that predicts, on arrays: clouds of points and fields on a grid."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from escnn_attn import SteerablePointClassifier
from escnn_attn.commands import predict as command
from escnn_attn.data import Flow, NBody
from escnn_attn.training import (
    AbsoluteCloudRegression,
    CloudPredictor,
    CloudRegression,
    FieldPredictor,
    FieldRegression,
    find_arrays,
    load_module,
)
from escnn_attn.training.array_prediction import read_arrays
from tests.training.runs import run
from tests.training.test_fields import FEW as FLOWS
from tests.training.test_fields import MODEL
from tests.training.test_nbody import FEW
from tests.training.test_prediction import predict


@pytest.fixture(scope="module")
def clouds_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clouds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Lightning
        run(folder, "epochs=1", "logger=[]")
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def fields_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("fields") / "flow.ckpt"
    trainer = pl.Trainer(
        max_steps=1, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        enable_checkpointing=False, default_root_dir=path.parent,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(FieldRegression({**MODEL, "group": "C2"}), Flow(5, vorticity=True, simulation=FLOWS, batch_size=5))
    trainer.save_checkpoint(path)
    return path


def saved(path: Path, **arrays) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def predictions(path: Path) -> np.ndarray:
    with np.load(path) as stored:
        assert set(stored) == {"predictions"}
        return stored["predictions"]


def test_clouds_are_predicted_as_the_module_does(tmp_path, monkeypatch, clouds_checkpoint, capsys):
    module, data = load_module(clouds_checkpoint), NBody(60, FEW)
    data.setup()
    batch = next(iter(data.test_dataloader()[0]))
    expected = module(batch).detach().numpy()
    count = batch.batch_size
    positions, features = batch.coords.numpy(), batch.features.numpy()
    order = np.random.default_rng(0).permutation(len(positions))
    saved(tmp_path / "in/even.npz", positions=positions.reshape(count, -1, 2), features=features.reshape(count, -1, 3))
    saved(
        tmp_path / "in/more/mixed.npz", positions=positions[order], features=features[order], batch=batch.batch.numpy()[order]
    )
    saved(tmp_path / "in/one.npz", positions=positions[:5], features=features[:5].astype(np.float64))
    predict(monkeypatch, tmp_path, f"checkpoint={clouds_checkpoint}", "in", "output=out", "batch_size=7")
    assert "predictions for 3 files in out" in capsys.readouterr().out
    np.testing.assert_allclose(predictions(tmp_path / "out/even.npz"), expected.reshape(count, -1, 2), atol=1e-5)
    np.testing.assert_allclose(predictions(tmp_path / "out/more/mixed.npz"), expected[order], atol=1e-5)
    np.testing.assert_allclose(predictions(tmp_path / "out/one.npz"), expected[:5], atol=1e-5)


def test_fields_are_predicted_as_the_module_does(tmp_path, monkeypatch, fields_checkpoint):
    fields = np.random.default_rng(0).standard_normal((5, 3, 16, 12))
    saved(tmp_path / "flows.npz", fields=fields)
    predict(monkeypatch, tmp_path, f"checkpoint={fields_checkpoint}", "flows.npz", "batch_size=2")
    expected = load_module(fields_checkpoint)(torch.from_numpy(fields).float()).detach().numpy()
    np.testing.assert_allclose(predictions(tmp_path / "predictions/flows.npz"), expected, atol=1e-5)


def test_saved_networks_predict_too(tmp_path, monkeypatch, clouds_checkpoint, fields_checkpoint):
    inputs = {"positions": np.eye(4, 2), "features": np.ones((4, 3)), "fields": np.ones((2, 3, 8, 8))}
    saved(tmp_path / "a.npz", **inputs)
    for checkpoint in (clouds_checkpoint, fields_checkpoint):
        load_module(checkpoint).model.save_pretrained(tmp_path / "saved")
        predict(monkeypatch, tmp_path, "pretrained=saved", "a.npz", "output=one")
        predict(monkeypatch, tmp_path, f"checkpoint={checkpoint}", "a.npz", "output=two")
        assert np.array_equal(predictions(tmp_path / "one/a.npz"), predictions(tmp_path / "two/a.npz"))
    SteerablePointClassifier("C4", channels=2, depth=1).save_pretrained(tmp_path / "saved")
    with pytest.raises(SystemExit, match="expected a network of fields at points or pixels, got a SteerablePointClassifier"):
        predict(monkeypatch, tmp_path, "pretrained=saved", "a.npz")


CLOUD = {"positions": np.zeros((4, 2)), "features": np.zeros((4, 3))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": None}, r"expected an array positions \(points, 2\) or \(clouds, points, 2\), got features"),
        ({"positions": np.zeros((4, 3))}, r"expected positions \(…, 2\) .* got \(4, 3\) and \(4, 3\)"),
        ({"positions": np.zeros(4)}, r"expected numbers positions .* got \(4,\) of float64"),
        ({"positions": np.full((4, 2), np.nan)}, "expected finite positions, got NaN or infinity"),
        ({"features": np.zeros((5, 3))}, r"of the same points, got \(4, 2\) and \(5, 3\)"),
        ({"features": np.zeros((4, 2))}, r"expected features of 3 channels for a network of .*, got \(4, 2\)"),
        ({"features": np.array([["a"] * 3] * 4)}, r"expected numbers features \(4, channels\), got \(4, 3\) of <U1"),
        ({"batch": np.zeros(3, int)}, r"expected batch \(4,\), indices of clouds from 0, got \(3,\)"),
        ({"batch": np.array([0, 0, -1, 1])}, r"expected batch \(4,\), indices of clouds from 0"),
    ],
)
def test_clouds_that_do_not_fit_are_refused(clouds_checkpoint, changes, message):
    predictor = CloudPredictor(load_module(clouds_checkpoint))
    predictor.prepared(CLOUD)
    with pytest.raises(ValueError, match=message):
        predictor.prepared({name: value for name, value in {**CLOUD, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (np.zeros((3, 8, 8)), r"expected numbers fields \(n, channels, height, width\), got \(3, 8, 8\)"),
        (np.zeros((1, 2, 8, 8)), r"that the network takes, got \(1, 2, 8, 8\): expected a model of 2 input channels"),
        (np.zeros((1, 3, 7, 8)), r"that the network takes, got \(1, 3, 7, 8\): .*multiples"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields_checkpoint, fields, message):
    with pytest.raises(ValueError, match=message):
        FieldPredictor(load_module(fields_checkpoint)).prepared({"fields": fields})


def test_features_of_networks_without_symmetry_are_without_their_coordinates():
    network = {"_target_": "escnn_attn.SteerablePointTransformer", "group": "trivial", "in_type": 5, "out_fields": 2, "channels": 2,
               "depth": 1}  # fmt: skip
    predictor = CloudPredictor(AbsoluteCloudRegression(network))
    assert predictor.predict(predictor.prepared(CLOUD)).shape == (4, 2)
    with pytest.raises(ValueError, match="expected features of 3 channels"):
        predictor.prepared({**CLOUD, "features": np.zeros((4, 5))})


@pytest.mark.filterwarnings("default")
def test_all_files_are_checked_before_the_first_is_predicted(tmp_path, monkeypatch, fields_checkpoint, capsys):
    saved(tmp_path / "in/a.npz", fields=np.zeros((2, 3, 8, 8)))
    saved(tmp_path / "in/b.npz", fields=np.zeros((2, 2, 8, 8)))
    saved(tmp_path / "in/c.npz", velocities=np.zeros((2, 3, 8, 8)))
    (tmp_path / "in/d.npz").write_bytes((tmp_path / "in/a.npz").read_bytes()[:100])
    np.savez(tmp_path / "in/e.npz", fields=np.array([{}]))  # a pickle, which is not loaded
    arguments = f"checkpoint={fields_checkpoint}", "in"
    with pytest.raises(SystemExit, match=r"(?s)got 4 of 5 files .*b\.npz: .*c\.npz: .* got velocities.*d\.npz: .*e\.npz: "):
        predict(monkeypatch, tmp_path, *arguments)
    assert not (tmp_path / "predictions").exists()
    with pytest.warns(UserWarning, match=r"left out 4 of 5 files"):
        predict(monkeypatch, tmp_path, *arguments, "skip_broken=true")
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["a.npz"]
    assert "predictions for 1 files" in capsys.readouterr().out


def test_no_file_is_written_over_one_that_is_read_and_none_twice(tmp_path, monkeypatch, fields_checkpoint):
    before = saved(tmp_path / "in/a.npz", fields=np.zeros((2, 3, 8, 8))).read_bytes()
    saved(tmp_path / "other/a.npz", fields=np.zeros((2, 3, 8, 8)))
    checkpoint = f"checkpoint={fields_checkpoint}"
    with pytest.raises(
        SystemExit, match=r"expected another output folder than in, where in/a\.npz is one of the files to read"
    ):
        predict(monkeypatch, tmp_path, checkpoint, "in", "output=in")
    with pytest.raises(SystemExit, match=r"got in/a\.npz and other/a\.npz, whose results would both be predictions/a\.npz"):
        predict(monkeypatch, tmp_path, checkpoint, "in/a.npz", "other/a.npz")
    assert (tmp_path / "in/a.npz").read_bytes() == before
    with pytest.raises(FileNotFoundError, match="expected an array file, a folder of array files or a pattern, got 'nowhere'"):
        find_arrays([tmp_path / "in", "nowhere"])
    with pytest.raises(SystemExit, match="expected either checkpoint=… or pretrained=…"):
        predict(monkeypatch, tmp_path, checkpoint, "pretrained=mine", "in")


def test_predictors_take_modules_of_their_kind_and_help_names_the_arrays():
    with pytest.raises(TypeError, match="module must be of type CloudRegression"):
        CloudPredictor(FieldRegression(torch.nn.Flatten()))
    assert not issubclass(CloudRegression, FieldRegression)
    for name in ("positions", "features", "batch", "fields", "predictions"):
        assert name in command.__doc__


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_files_without_points_have_predictions_without_rows(clouds_checkpoint, shape):
    predictor = CloudPredictor(load_module(clouds_checkpoint))
    arrays = {"positions": np.zeros((*shape, 2)), "features": np.zeros((*shape, 3))}
    assert predictor.predict(predictor.prepared(arrays)).shape == (*shape, 2)


def test_an_array_without_a_name_is_refused(tmp_path):
    np.save(tmp_path / "flows.npy", np.zeros((2, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"one array without a name: save it by np\.savez"):
        read_arrays(tmp_path / "flows.npy")
