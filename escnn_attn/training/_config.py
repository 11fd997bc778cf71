"""From a configuration to the objects of a run: checks of its values, the process, the trainer."""

from importlib.util import find_spec
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import OnExceptionCheckpoint

from escnn_attn.arguments import require_integer
from escnn_attn.data.images import class_names
from escnn_attn.training._memory import keep_freed_memory

# `${count_classes:<folder>}` in configurations: the number of classes that a folder of images has
OmegaConf.register_new_resolver("count_classes", lambda folder: len(class_names(folder)), replace=True, use_cache=True)


#: what Lightning's loggers need beside it, by the names of their classes: modules, any of which will do, and the package that has one
LOGGERS = {
    "CometLogger": (("comet_ml",), "comet-ml"),
    "MLFlowLogger": (("mlflow",), "mlflow"),
    "NeptuneLogger": (("neptune",), "neptune"),
    "TensorBoardLogger": (("tensorboard", "tensorboardX"), "tensorboard"),
    "WandbLogger": (("wandb",), "wandb"),
}


def require_valid(config: DictConfig) -> None:
    """Checks the values that no other object checks at the start of a run.

    Raises:
        ValueError, TypeError: that names the key, what it may be, and what it is.
        ImportError: if a logger needs a package that is not installed.
    """
    unlimited = config.epochs in (None, -1) and config.trainer.max_steps != -1
    if not unlimited:
        require_integer("epochs", config.epochs)
    require_integer("seed", config.seed, 0)
    if config.threads is not None:
        require_integer("threads", config.threads)
    if config.angle_images is not None:
        require_integer("angle_images", config.angle_images, 0)
    for key in ("compile", "resume", "test"):
        if not isinstance(config[key], bool):
            raise TypeError(f"expected {key} to be true or false, got {config[key]!r}")
    for key in ("callbacks", "logger", "plugins"):
        if config.trainer.get(key) is not None:
            raise ValueError(
                f"expected {key}.<name>=… or {key}=<group>, got trainer.{key}, which would drop those of the group"
            )
    _require_packages(config)


def _require_packages(config: DictConfig) -> None:
    """Names the packages that loggers need before a run makes anything: Lightning would find out after data and network are made."""
    for name, part in (config.get("logger") or {}).items():
        modules, package = LOGGERS.get(str((part or {}).get("_target_")).rpartition(".")[2], ((), ""))
        if modules and not any(find_spec(module) for module in modules):
            raise ImportError(f"logger={name} needs {package}: pip install {package}")


def prepare_process(config: DictConfig) -> None:
    """Seeds random generators, and sets threads, precision and allocator of the process."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)


def make_trainer(config: DictConfig) -> pl.Trainer:
    """Makes the trainer with the callbacks, loggers and plugins of the configuration, which are named; null leaves one out.

    Raises:
        TypeError: if one of the callbacks would make Lightning resume unasked.
        ValueError: if the accelerator does not have the precision.
    """
    parts = {key: _parts(config, key) for key in ("callbacks", "logger", "plugins")}
    if any(isinstance(callback, OnExceptionCheckpoint) for callback in parts["callbacks"]):
        raise TypeError(
            "expected InterruptedCheckpoint, got OnExceptionCheckpoint, whose file Lightning loads in the next run unasked"
        )
    trainer = instantiate(config.trainer, _partial_=True)(**parts)
    if str(config.trainer.precision).startswith("16") and not trainer.precision.startswith("16"):
        raise ValueError(
            f"expected a precision that a {trainer.accelerator.name()} has, such as bf16-mixed, got trainer.precision="
            f"{config.trainer.precision}, for which Lightning takes {trainer.precision}"
        )
    return trainer


def _parts(config: DictConfig, key: str) -> list[Any]:
    return [instantiate(part) for part in (config.get(key) or {}).values() if part is not None]
