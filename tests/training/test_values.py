"""Values of the configuration: allowed or refused at the start; callbacks and loggers by name; precision."""

import json
from importlib.util import find_spec

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from escnn_attn.data import Digits
from escnn_attn.training import AveragedWeights, ImageClassifier, _config
from escnn_attn.training._config import make_trainer
from tests.training.runs import configured, run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=ten", "epochs must be an integer, got 'ten'"),
        ("epochs=1.5", "epochs must be an integer, got 1.5"),
        ("epochs=0", "epochs must be at least 1, got 0"),
        ("epochs=null", "epochs must be an integer, got None"),
        ("seed=-1", "seed must not be negative, got -1"),
        ("threads=0", "threads must be at least 1, got 0"),
        ("angle_images=-1", "angle_images must not be negative, got -1"),
        ("resume=yes", "expected resume to be true or false, got 'yes'"),
        ("module.learning_rate=abc", "learning_rate must be a number, got 'abc'"),
        ("module.learning_rate=0", "learning_rate must be above 0, got 0"),
        ("module.weight_decay=-1", "weight_decay must be at least 0, got -1"),
        ("module.warmup=2", "warmup must be at least 0 and at most 1, got 2"),
        ("data.batch_size=0", "batch_size must be at least 1, got 0"),
        (
            "data.batch_size=100000",
            "expected a batch_size of at most the 60 training samples, got 100000: take data.batch_size=60",
        ),
        ("trainer.precision=16-mixed", "got trainer.precision=16-mixed, for which Lightning takes bf16-mixed"),
        (
            "trainer.precision=bf16-true",
            "expected precision 32-true, 64-true or bf16-mixed for averaged weights, got bf16-true",
        ),
        ("callbacks=cuda_graph", "expected a CUDA device for CudaGraph, got cpu: take trainer=gpu"),
        ("+trainer.callbacks=[]", r"expected callbacks.<name>=… or callbacks=<group>, got trainer.callbacks"),
        (
            "+callbacks.mine={_target_: pytorch_lightning.callbacks.OnExceptionCheckpoint, dirpath: .}",
            "expected InterruptedCheckpoint, got OnExceptionCheckpoint",
        ),
    ],
)
def test_values_that_are_not_allowed_are_named_at_the_start(tmp_path, override, message):
    with pytest.raises(Exception, match=message.replace("(", r"\(")):
        run(tmp_path, override)
    assert not (tmp_path / "results.json").exists()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("logger", "module"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "tensorboard")])
def test_a_logger_without_its_package_is_named_before_anything_is_made(tmp_path, monkeypatch, logger, module):
    monkeypatch.setattr(_config, "find_spec", lambda name: None if name.startswith(module) else find_spec(name))
    with pytest.raises(ImportError, match=f"^logger={logger} needs {module}: pip install {module}$"):
        run(tmp_path / "run", f"logger=[csv,{logger}]")
    assert not (tmp_path / "run").exists()
    _config.require_valid(configured(tmp_path / "run", "logger=csv"))
    _config.require_valid(configured(tmp_path / "run", f"logger={logger}", f"logger.{logger}=null"))


def test_steps_may_limit_a_training_in_place_of_epochs(tmp_path):
    assert run(tmp_path, "epochs=null", "trainer.max_steps=4")["epochs"] == 2


def names(folder, *overrides):
    config = configured(folder, *overrides)
    return [type(callback).__name__ for callback in make_trainer(config).callbacks], config


@pytest.mark.parametrize(
    "override",
    ["callbacks=early_stopping", "callbacks=[early_stopping,learning_rate]", "+callbacks.early_stopping={_target_: escnn_attn.training.EarlyStop}"],
)  # fmt: skip
def test_a_callback_is_added_to_those_of_every_run(tmp_path, override):
    usual, _ = names(tmp_path)
    more, _ = names(tmp_path, override)
    assert set(more) - set(usual) == {"EarlyStop", "LearningRateMonitor"} if "rate" in override else {"EarlyStop"}
    assert set(usual) <= set(more)
    assert {"AveragedWeights", "SeedSteps", "BestCheckpoint", "ModelCheckpoint", "InterruptedCheckpoint"} <= set(usual)


def test_a_callback_is_left_out_by_null(tmp_path):
    left, _ = names(tmp_path, "callbacks.averaged_weights=null")
    assert "AveragedWeights" not in left
    assert "SeedSteps" in left


def test_loggers_are_chosen_by_name(tmp_path):
    (logger,) = make_trainer(configured(tmp_path, "logger=csv")).loggers
    assert isinstance(logger, CSVLogger)
    assert make_trainer(configured(tmp_path, "logger=[]")).loggers == []
    _, config = names(tmp_path, "logger=[csv]", "debug=few_steps")
    assert config.trainer.limit_train_batches == 3
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        for name in ("wandb", "mlflow"):
            assert list(compose("train", overrides=[f"logger=[csv,{name}]"]).logger) == ["csv", name]


def test_early_stopping_is_by_the_metric_of_the_module(tmp_path, capsys):
    patient = ("epochs=50", "callbacks=early_stopping", "callbacks.early_stopping.patience=1")
    results = run(tmp_path, *patient, "callbacks.early_stopping.min_delta=10")
    assert results["epochs"] == 2
    assert "stopped by a callback after 2 of 50 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("debug", ["few_steps", "overfit", "profile"])
def test_debug_configurations_run(tmp_path, debug, caplog):
    results = run(tmp_path, f"debug={debug}", "epochs=1")
    assert results["epochs"] == 1


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_weights_are_averaged_in_other_precisions(tmp_path, precision):
    results = run(tmp_path, f"trainer.precision={precision}", "epochs=2")
    assert results["validation"] == pytest.approx(run(tmp_path / "single", "epochs=2")["validation"], rel=2e-2)
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {v.dtype for v in stored.values() if v.is_floating_point()} <= {
        torch.float64 if precision == "64-true" else torch.float32
    }


@pytest.mark.parametrize("model", ["steerable", "plain", "convolutions", "group_attention"])
def test_shipped_models_of_images_train_in_mixed_precision(tmp_path, model):
    _mixed(tmp_path, f"model={model}", "data=digits", "module=classifier", "model.channels=4")


@pytest.mark.parametrize("experiment", ["nbody", "nbody_baseline"])
def test_shipped_models_of_points_train_in_mixed_precision(tmp_path, experiment):
    _mixed(tmp_path, f"experiment={experiment}")


def _mixed(folder, *overrides):
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        config = compose("train", overrides=["name=a", *overrides])
    module = instantiate(config.module, _recursive_=False, _convert_="all")
    data = instantiate(config.data, batch_size=4)
    trainer = pl.Trainer(
        precision="bf16-mixed", max_steps=2, limit_val_batches=1, logger=False, callbacks=[AveragedWeights()], accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, data)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_logits_of_another_number_of_classes_are_refused():
    classifier = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 10)), num_classes=7)
    with pytest.raises(ValueError, match=r"expected a model with logits of num_classes=7 classes, got logits \(2, 10\)"):
        classifier.shared_step("train", (torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)))


def test_the_number_of_classes_stands_in_one_place():
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        config = compose("train", overrides=["model.num_classes=7", "model.in_type=3", "model.channels=2", "name=a"])
    module = instantiate(config.module, _recursive_=False, _convert_="all")
    assert module.num_classes == 7
    assert module(torch.rand(2, 3, 29, 29)).shape == (2, 7)


def test_more_loaders_than_test_sets_are_refused():
    classifier = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(841, 10)), test_sets=("upright",))
    with pytest.raises(ValueError, match=r"expected a loader for each of test_sets=\['upright'\], got more"):
        make_tester().test(classifier, Digits(), verbose=False)
    images = TensorDataset(torch.rand(4, 1, 29, 29), torch.zeros(4, dtype=torch.long))
    assert "upright/accuracy" in make_tester().test(classifier, DataLoader(images), verbose=False)[0]


def make_tester():
    return pl.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu", limit_test_batches=1
    )


def test_the_bar_of_a_terminal_of_80_columns_shows_loss_rate_and_metric(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    run(tmp_path, "epochs=1", "callbacks.progress={_target_: escnn_attn.training.CompactProgressBar}")
    line = next(line for line in capsys.readouterr().out.splitlines() if "Epoch 0" in line)
    assert all(word in line for word in ("loss:", "rate:", "error:"))
    assert len(line) <= 80


def test_settings_and_results_are_json_of_plain_values(tmp_path):
    run(tmp_path, "epochs=1", "test=false")
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 0
