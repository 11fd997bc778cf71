"""Entry points: training of one configuration, and evaluation of a checkpoint."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Timer

from escnn_attn.analysis.report import describe, draw
from escnn_attn.data.base import DataModule
from escnn_attn.training._memory import keep_freed_memory
from escnn_attn.training._results import finished_results, require_same_settings, save_results, settings_of
from escnn_attn.training.classifier import ImageClassifier
from escnn_attn.training.evaluation import evaluate, rotation_results, run_tests
from escnn_attn.training.module import SupervisedModule, load_module


def train(config: DictConfig) -> dict[str, Any]:
    """Fits the configured module, tests it once, and writes `results.json` beside its checkpoints.

    Args:
        config: composed from `conf/train.yaml`.

    Returns:
        the results: name, number of parameters, minutes, the metric on validation and test sets, and accuracy by angle if the
        data module has upright test images.

    Raises:
        ValueError: if `resume` is set and the folder holds a run with other settings.
    """
    folder, settings = Path(config.trainer.default_root_dir), settings_of(config)
    if config.resume:
        require_same_settings(folder / "settings.json", settings)
        if results := finished_results(folder, tested=config.test):
            print(f"finished before: {describe(results)}")
            return results
    _prepare_process(config)
    datamodule: DataModule = instantiate(config.data)
    module: SupervisedModule = instantiate(
        config.module, _recursive_=False, _convert_="all", test_sets=list(datamodule.test_sets)
    )
    if config.compile:
        module.model.compile()
    trainer: pl.Trainer = instantiate(config.trainer)
    if trainer.is_global_zero:
        save_results(folder / "settings.json", settings)
    minutes = _fit(trainer, module, datamodule, _checkpoint_to_resume(config))
    results = {**_facts(config, trainer, module, datamodule), "minutes": round(minutes, 2)}
    results["validation"] = trainer.validate(module, datamodule, verbose=False)[0][f"validation/{module.metric}"]
    if config.test:
        results |= run_tests(trainer, module, datamodule)
    if trainer.is_global_zero:
        save_results(folder / "results.json", results)
        if config.test:
            results |= rotation_results(module, datamodule, config.angle_images)
        results["finished"] = True
        save_results(folder / "results.json", results)
        print(describe(results))
    return results


def _prepare_process(config: DictConfig) -> None:
    """Seeds random generators, and sets threads, precision and allocator of the process."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)


def _checkpoint_to_resume(config: DictConfig) -> str | None:
    last = Path(config.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    return str(last) if config.resume and config.ckpt_path is None and last.exists() else config.ckpt_path


def _facts(config: DictConfig, trainer: pl.Trainer, module: SupervisedModule, datamodule: DataModule) -> dict[str, Any]:
    """Results that are known without evaluation."""
    return {
        "name": config.name,
        "overrides": list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
        "model": OmegaConf.to_container(config.model, resolve=True),
        "parameters": sum(p.numel() for p in module.parameters()),
        "samples": len(datamodule.datasets["train"]),  # pyright: ignore[reportArgumentType] (all data sets have a length)
        "epochs": trainer.current_epoch,
        "seed": config.seed,
        "metric": module.metric,
    }


def _fit(trainer: pl.Trainer, module: SupervisedModule, datamodule: DataModule, ckpt_path: str | None) -> float:
    """Trains, and returns the minutes taken, including those before an interruption."""
    timer = Timer()
    trainer.callbacks.append(timer)  # pyright: ignore[reportAttributeAccessIssue] (a list, set by a connector)
    try:
        trainer.fit(module, datamodule, ckpt_path=ckpt_path)
    except (KeyboardInterrupt, SystemExit):
        checkpoints = Path(trainer.default_root_dir) / "checkpoints"
        written = (path for name in ("last", "interrupted") if (path := checkpoints / f"{name}.ckpt").exists())
        if path := next(written, None):
            print(f"\ninterrupted; to resume, repeat the command with ckpt_path={path}")
        raise
    return timer.time_elapsed() / 60


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hides Lightning's messages and warnings about itself within the block."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            yield
    finally:
        logger.setLevel(level)


@hydra.main(version_base="1.3", config_path="pkg://escnn_attn.conf", config_name="train")
def train_command(config: DictConfig) -> float:
    """Trains the configured module, and returns the metric on validation for sweepers that optimize it."""
    with _quiet_lightning():
        return train(config)["validation"]


@hydra.main(version_base="1.3", config_path="pkg://escnn_attn.conf", config_name="evaluate")
def evaluate_command(config: DictConfig) -> None:
    """Evaluates the module of `checkpoint=…`, or the classifier `pretrained=…`, on the test sets of `data=…`."""
    if (config.checkpoint is None) == (config.pretrained is None):
        raise ValueError(f"expected either checkpoint=… or pretrained=…, got {config.checkpoint} and {config.pretrained}")
    keep_freed_memory()
    datamodule: DataModule = instantiate(config.data)
    if config.pretrained is None:
        name = Path(config.checkpoint).resolve().parents[1].name
        module = load_module(config.checkpoint, trust=config.trust, test_sets=datamodule.test_sets)
    else:
        name = str(config.pretrained)
        module = ImageClassifier.from_pretrained(name, datamodule.test_sets, trust=config.trust)
    with _quiet_lightning():
        results = evaluate(module, name, datamodule, config.angle_images)
    folder = Path(os.getcwd() if config.output is None else config.output)
    save_results(folder / "evaluation.json", results)
    draw([results], folder)
    print(describe(results))
    for angle, accuracy in zip(results.get("angles", ()), results.get("accuracy_by_angle", ()), strict=True):
        print(f"{angle:4d}° {100 * accuracy:5.1f} %")
