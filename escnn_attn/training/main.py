"""Entry points of the commands that train and evaluate."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from escnn_attn.analysis.report import describe, draw
from escnn_attn.arguments import require_instance
from escnn_attn.data.base import DataModule
from escnn_attn.files import write_json
from escnn_attn.models.image import ImageNetwork
from escnn_attn.training._memory import keep_freed_memory
from escnn_attn.training.augment import TurnedAverage
from escnn_attn.training.class_report import ClassReport
from escnn_attn.training.classifier import ImageClassifier
from escnn_attn.training.command_line import brief_errors, refusal
from escnn_attn.training.evaluation import evaluate
from escnn_attn.training.module import load_module
from escnn_attn.training.run import ended_by_termination, train


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hides Lightning's messages and warnings about itself within the block, but not the report of a profiler."""
    levels = {"pytorch_lightning": logging.ERROR, "pytorch_lightning.profilers": logging.INFO}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@hydra.main(version_base="1.3", config_path="pkg://escnn_attn.conf", config_name="train")
@brief_errors
def train_command(config: DictConfig) -> float:
    """Trains the configured module, and returns the metric on validation for sweepers that optimize it.

    In a sweep a run that fails returns NaN, and leaves `failure.json`: the others go on, and the report at the end names it.
    """
    failure = Path(config.trainer.default_root_dir) / "failure.json"
    try:
        with _quiet_lightning(), ended_by_termination():
            results = train(config)
    except Exception as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise
        if (found := refusal(error)) is None:
            traceback.print_exc()
        else:
            print(f"error: {found}", file=sys.stderr)
        write_json(failure, {"error": f"{type(found or error).__name__}: {found or error}"})
        return float("nan")
    failure.unlink(missing_ok=True)
    return results.get("validation", float("nan"))


@hydra.main(version_base="1.3", config_path="pkg://escnn_attn.conf", config_name="evaluate")
@brief_errors
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
    if config.refine != 1:
        module.model = require_instance("refine: the network", module.model, ImageNetwork).refined(config.refine)
    if config.turns != 1:
        module.model = TurnedAverage(module.model, config.turns)
    folder = Path(os.getcwd() if config.output is None else config.output)
    with _quiet_lightning():
        results = evaluate(module, name, datamodule, config.angle_images, [ClassReport(folder)], config.angle_resolution)
    write_json(folder / "evaluation.json", results)
    draw([results], folder)
    print(describe(results))
    by_angle = (results.get(name, ()) for name in ("angles", "accuracy_by_angle", "unchanged_by_angle", "change_by_angle"))
    for angle, accuracy, unchanged, change in zip(*by_angle, strict=True):
        print(f"{angle:4d}° {100 * accuracy:5.1f} %, as upright {100 * unchanged:5.1f} %, logits changed by {change:.2g}")
