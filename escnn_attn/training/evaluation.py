"""Evaluation of trained modules: the metric on test sets, and accuracy by rotation angle."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from escnn_attn.analysis.rotation import accuracy_by_angle
from escnn_attn.data.base import DataModule
from escnn_attn.data.digits import ImageDataModule
from escnn_attn.training.module import SupervisedModule


def evaluate(
    module: SupervisedModule,
    name: str,
    datamodule: DataModule,
    angle_images: int | None = None,
    callbacks: Sequence[Callback] = (),
    angle_resolution: int = 1,
) -> dict[str, Any]:
    """Evaluates a module on the test sets of a data module, and by rotation angle if it has upright test images.

    Args:
        module: with the test sets of the data module.
        name: of the results.
        datamodule: provides the test sets.
        angle_images: number of upright test images rotated to each angle; None for all, 0 for no measurement.
        callbacks: of the test, such as `ClassReport`.
        angle_resolution: of these rotations (see `rotate_images`).
    """
    quiet: dict[str, Any] = {
        "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False
    }  # fmt: skip
    trainer = pl.Trainer(**quiet, devices=1, callbacks=list(callbacks))  # of several, samplers would repeat samples
    return {
        "name": name,
        "parameters": sum(p.numel() for p in module.parameters()),
        "metric": module.metric,
        **run_tests(trainer, module, datamodule),
        **rotation_results(module, datamodule, angle_images, angle_resolution),
    }


def run_tests(trainer: pl.Trainer, module: SupervisedModule, datamodule: DataModule) -> dict[str, Any]:
    """Tests a module, and returns the metric on each test set, `"test"`, and the `test_results` of the module."""
    logged = trainer.test(module, datamodule, verbose=False)
    values = {name: values[f"{name}/{module.metric}"] for name, values in zip(datamodule.test_sets, logged, strict=True)}
    return {"test": values, **module.test_results()}


def rotation_results(
    module: SupervisedModule, datamodule: DataModule, angle_images: int | None, resolution: int = 1
) -> dict[str, Any]:
    """Returns the accuracy by rotation angle; nothing if there are no upright test images, or `angle_images` is 0."""
    if angle_images == 0 or not isinstance(datamodule, ImageDataModule):
        return {}
    upright = datamodule.upright_test_images()
    if upright is None:
        return {}
    images, labels = (part[:angle_images] for part in upright)
    return accuracy_by_angle(module, images, labels, resolution)
