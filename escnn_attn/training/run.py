"""The entry points: train one configuration, and evaluate a checkpoint."""

import json
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from escnn_attn.training.classifier import ImageClassifier
from escnn_attn.training.data import DigitsDataModule, rotate_images, to_input
from escnn_attn.training.mnist import write_aside

# news of the libraries themselves, which nobody who trains can act on
warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

ANGLES = tuple(range(0, 360, 15))


def train(config: DictConfig) -> dict[str, Any]:
    """Fits the configured module, tests it once, and writes `results.json` beside its checkpoints.

    Args:
        config: as `conf/train.yaml` composes it.

    Returns:
        the results: name, parameters, minutes, validation and test accuracies, accuracy by angle.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    if config.threads:
        torch.set_num_threads(config.threads)
    datamodule: DigitsDataModule = instantiate(config.data)
    module: ImageClassifier = instantiate(
        config.module, _recursive_=False, _convert_="all", test_sets=list(datamodule.test_sets)
    )
    trainer: pl.Trainer = instantiate(config.trainer)
    start = time.monotonic()
    try:
        trainer.fit(module, datamodule, ckpt_path=config.ckpt_path)
    except (KeyboardInterrupt, SystemExit):
        print(f"\ninterrupted; to resume from the last whole epoch: ckpt_path={trainer.default_root_dir}/checkpoints/last.ckpt")
        raise
    minutes = (time.monotonic() - start) / 60
    results = {
        "name": config.name,
        "model": OmegaConf.to_container(config.model, resolve=True),
        "parameters": sum(p.numel() for p in module.parameters()),
        "epochs": trainer.current_epoch,
        "minutes": round(minutes, 2),
        "seed": config.seed,
        "validation": trainer.validate(module, datamodule, verbose=False)[0]["validation/accuracy"],
    }
    if config.test:
        tested = trainer.test(module, datamodule, verbose=False)
        results["test"] = {name: pairs[f"{name}/accuracy"] for name, pairs in zip(datamodule.test_sets, tested, strict=True)}
    if trainer.is_global_zero:
        save_results(Path(trainer.default_root_dir) / "results.json", results)
        if config.test:
            results["angles"] = ANGLES
            results["accuracy_by_angle"] = accuracy_by_angle(module, datamodule, config.angle_images)
        save_results(Path(trainer.default_root_dir) / "results.json", results)
        print(describe(results))
    return results


def evaluate(checkpoint: str, datamodule: DigitsDataModule, images: int | None = None) -> dict[str, Any]:
    """Accuracy of a checkpoint on the test sets of a data module, and by rotation angle.

    Args:
        checkpoint: file that `train` wrote.
        datamodule: whose test sets to use.
        images: how many upright test images to rotate to each angle; None for all.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"expected a checkpoint file, got {checkpoint!r}")
    module = ImageClassifier.load_from_checkpoint(checkpoint, map_location="cpu", test_sets=list(datamodule.test_sets))
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    tested = trainer.test(module, datamodule, verbose=False)
    return {
        "name": Path(checkpoint).parent.parent.name,
        "parameters": sum(p.numel() for p in module.parameters()),
        "test": {name: pairs[f"{name}/accuracy"] for name, pairs in zip(datamodule.test_sets, tested, strict=True)},
        "angles": ANGLES,
        "accuracy_by_angle": accuracy_by_angle(module, datamodule, images),
    }


@torch.inference_mode()
def accuracy_by_angle(module: ImageClassifier, datamodule: DigitsDataModule, images: int | None) -> list[float]:
    """Accuracy on upright test images, all rotated by one angle, for each of `ANGLES`."""
    upright, labels = datamodule.upright_test_images()
    upright, truth = upright[:images], torch.from_numpy(labels[:images].astype("int64"))
    module.eval()
    accuracies = []
    for angle in ANGLES:
        rotated = rotate_images(upright, np.full(len(upright), angle))
        logits = torch.cat([module(batch) for batch in to_input(rotated).split(256)])
        accuracies.append(float((logits.argmax(dim=1) == truth).float().mean()))
    return accuracies


def save_results(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, lambda aside: aside.write_text(json.dumps(results, indent=1)))


def describe(results: dict[str, Any]) -> str:
    """One line about a result."""
    accuracies = ", ".join(f"{name} {100 * value:.1f} %" for name, value in results.get("test", {}).items())
    return f"{results['name']}: {results['parameters']:,} parameters, {accuracies or 'not tested'}"


@hydra.main(version_base="1.3", config_path="pkg://escnn_attn.conf", config_name="train")
def train_command(config: DictConfig) -> float:
    """Trains what the command line configures; returns the validation accuracy, for sweepers that optimise it."""
    return train(config)["validation"]


@hydra.main(version_base="1.3", config_path="pkg://escnn_attn.conf", config_name="evaluate")
def evaluate_command(config: DictConfig) -> None:
    """Evaluates `checkpoint=…` on the test sets of `data=…`."""
    from escnn_attn.training.plots import plot_accuracy_by_angle

    results = evaluate(config.checkpoint, instantiate(config.data), config.angle_images)
    folder = Path(os.getcwd() if config.output is None else config.output)
    save_results(folder / "evaluation.json", results)
    plot_accuracy_by_angle([results], folder / "accuracy_by_angle.png")
    print(describe(results))
    for angle, accuracy in zip(results["angles"], results["accuracy_by_angle"], strict=True):
        print(f"{angle:4d}° {100 * accuracy:5.1f} %")
