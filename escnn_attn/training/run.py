"""The entry points: train one configuration, and evaluate a checkpoint."""

import json
import logging
import os
import warnings
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
from escnn_attn.data._files import write_aside
from escnn_attn.data.base import DataModule
from escnn_attn.training.base import Learner, load_learner
from escnn_attn.training.classifier import ImageClassifier
from escnn_attn.training.memory import keep_freed_memory

# news of the libraries themselves, which nobody who trains can act on
warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def train(config: DictConfig) -> dict[str, Any]:
    """Fits the configured module, tests it once, and writes `results.json` beside its checkpoints.

    Args:
        config: as `conf/train.yaml` composes it.

    Returns:
        the results: name, parameters, minutes, the metric and its value on validation and test sets, and what else the
        data module measures.

    Raises:
        ValueError: if the folder of a run to resume holds one with other settings.
    """
    folder, settings = Path(config.trainer.default_root_dir), _settings(config)
    if config.resume:
        _require_same(folder / "settings.json", settings)
    if config.resume and (results := finished_results(folder, tested=config.test)):
        print(f"finished before: {describe(results)}")
        return results
    pl.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    datamodule: DataModule = instantiate(config.data)
    learner: Learner = instantiate(config.module, _recursive_=False, _convert_="all", test_sets=list(datamodule.test_sets))
    if config.compile:
        learner.model.compile()
    trainer: pl.Trainer = instantiate(config.trainer)
    last = folder / "checkpoints" / "last.ckpt"
    ckpt_path = str(last) if config.resume and config.ckpt_path is None and last.exists() else config.ckpt_path
    if trainer.is_global_zero:
        save_results(folder / "settings.json", settings)
    minutes = _fit(trainer, learner, datamodule, ckpt_path)
    results = {
        "name": config.name,
        "overrides": list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
        "model": OmegaConf.to_container(config.model, resolve=True),
        "parameters": sum(p.numel() for p in learner.parameters()),
        "samples": len(datamodule.datasets["train"]),  # pyright: ignore[reportArgumentType] (all of ours have a length)
        "epochs": trainer.current_epoch,
        "minutes": round(minutes, 2),
        "seed": config.seed,
        "metric": learner.metric,
        "validation": trainer.validate(learner, datamodule, verbose=False)[0][f"validation/{learner.metric}"],
    }
    if config.test:
        results |= _test(trainer, learner, datamodule)
    if trainer.is_global_zero:
        save_results(folder / "results.json", results)
        if config.test:
            results |= datamodule.measure(learner)
        results["finished"] = True
        save_results(folder / "results.json", results)
        print(describe(results))
    return results


def _settings(config: DictConfig) -> dict[str, Any]:
    """What the results of a run depend on, by dotted names."""
    chosen = {}
    for part in ("data", "model", "module", "epochs", "seed"):
        value = config[part]
        chosen |= _flat(part, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
    chosen.pop("data.folder", None)  # the same images may lie elsewhere
    return chosen


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {inner: leaf for key, below in value.items() for inner, leaf in _flat(f"{name}.{key}", below).items()}


def _require_same(path: Path, settings: dict[str, Any]) -> None:
    """Raises a ValueError if a run left other settings there."""
    before = json.loads(path.read_text()) if path.exists() else settings
    names = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if names:
        changed = ", ".join(f"{name}={before.get(name)} there, {settings.get(name)} now" for name in names)
        raise ValueError(
            f"{path.parent} holds a run with other settings ({changed}): choose another folder, or remove that one"
        )


def _fit(trainer: pl.Trainer, learner: Learner, datamodule: DataModule, ckpt_path: str | None) -> float:
    """Trains, and returns the minutes that it took, those before an interruption included."""
    timer = Timer()
    trainer.callbacks.append(timer)  # pyright: ignore[reportAttributeAccessIssue] (a list, added by a connector)
    try:
        trainer.fit(learner, datamodule, ckpt_path=ckpt_path)
    except (KeyboardInterrupt, SystemExit):
        checkpoints = Path(trainer.default_root_dir) / "checkpoints"
        kept = next((path for name in ("last", "interrupted") if (path := checkpoints / f"{name}.ckpt").exists()), None)
        if kept is not None:
            print(f"\ninterrupted; the same command with ckpt_path={kept} resumes it")
        raise
    return timer.time_elapsed() / 60


def evaluate(learner: Learner, name: str, datamodule: DataModule) -> dict[str, Any]:
    """The metric of a trained module on the test sets of a data module, and what else the data module measures.

    Args:
        learner: with the test sets of the data module.
        name: for the results.
        datamodule: whose test sets to use.
    """
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    return {
        "name": name,
        "parameters": sum(p.numel() for p in learner.parameters()),
        "metric": learner.metric,
        **_test(trainer, learner, datamodule),
        **datamodule.measure(learner),
    }


def _test(trainer: pl.Trainer, learner: Learner, datamodule: DataModule) -> dict[str, Any]:
    logged = trainer.test(learner, datamodule, verbose=False)
    values = {name: pairs[f"{name}/{learner.metric}"] for name, pairs in zip(datamodule.test_sets, logged, strict=True)}
    return {"test": values, **learner.tested()}


def finished_results(folder: Path, tested: bool) -> dict[str, Any] | None:
    """The results of a run that `train` finished in a folder, `tested` if they must be; None if it did not."""
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    return results if results.get("finished") and ("test" in results or not tested) else None


def save_results(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, lambda aside: aside.write_text(json.dumps(results, indent=1)))


@hydra.main(version_base="1.3", config_path="pkg://escnn_attn.conf", config_name="train")
def train_command(config: DictConfig) -> float:
    """Trains what the command line configures; returns the metric on validation, for sweepers that optimize it."""
    return train(config)["validation"]


@hydra.main(version_base="1.3", config_path="pkg://escnn_attn.conf", config_name="evaluate")
def evaluate_command(config: DictConfig) -> None:
    """Evaluates `checkpoint=…`, or the classifier `pretrained=…`, on the test sets of `data=…`."""
    if (config.checkpoint is None) == (config.pretrained is None):
        raise ValueError(f"expected one of checkpoint and pretrained, got {config.checkpoint} and {config.pretrained}")
    keep_freed_memory()
    datamodule: DataModule = instantiate(config.data)
    if config.pretrained is None:
        learner, name = (
            load_learner(config.checkpoint, test_sets=datamodule.test_sets),
            Path(config.checkpoint).parent.parent.name,
        )
    else:
        learner, name = ImageClassifier.from_pretrained(config.pretrained, datamodule.test_sets), str(config.pretrained)
    results = evaluate(learner, name, datamodule)
    folder = Path(os.getcwd() if config.output is None else config.output)
    save_results(folder / "evaluation.json", results)
    draw([results], folder)
    print(describe(results))
    for angle, accuracy in zip(results.get("angles", ()), results.get("accuracy_by_angle", ()), strict=True):
        print(f"{angle:4d}° {100 * accuracy:5.1f} %")
