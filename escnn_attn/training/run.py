"""Training of one configuration."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Timer

from escnn_attn.analysis.report import describe
from escnn_attn.data.base import DataModule
from escnn_attn.files import write_atomically, write_json
from escnn_attn.training._config import make_trainer, prepare_process, require_valid
from escnn_attn.training._folder import checkpoint_to_start_from, locked
from escnn_attn.training._results import finished_results, require_same_settings, settings_of
from escnn_attn.training.callbacks import AveragedWeights
from escnn_attn.training.evaluation import rotation_results, run_tests
from escnn_attn.training.module import SupervisedModule


def train(config: DictConfig) -> dict[str, Any]:
    """Fits the configured module, tests it once, and writes `results.json` beside its checkpoints.

    Args:
        config: composed from `conf/train.yaml`.

    Returns:
        the results: name, number of parameters, minutes, the metric on validation and test sets, and accuracy by angle if the
        data module has upright test images.

    Raises:
        ValueError: if a value of the configuration is not allowed; if the folder holds another run, or with `resume` one with
            other settings or without a whole checkpoint.
        RuntimeError: if another process trains in the folder.
        FloatingPointError: if the loss is no longer finite, which is recorded as the result.
    """
    require_valid(config)
    folder = Path(config.trainer.default_root_dir)
    with locked(folder):
        if config.resume:
            require_same_settings(folder, settings_of(config))
            if results := finished_results(folder, tested=config.test):
                print(f"finished before: {describe(results)}")
                return results
        return _train(config, folder, checkpoint_to_start_from(folder, config.ckpt_path, config.resume))


def _train(config: DictConfig, folder: Path, checkpoint: Path | None) -> dict[str, Any]:
    prepare_process(config)
    datamodule: DataModule = instantiate(config.data)
    module: SupervisedModule = instantiate(
        config.module, _recursive_=False, _convert_="all", test_sets=list(datamodule.test_sets)
    )
    if config.compile:
        module.model.compile()
    trainer = make_trainer(config)
    results_path = folder / "results.json"
    if trainer.is_global_zero:
        write_json(folder / "settings.json", settings_of(config))
        write_atomically(folder / "config.yaml", lambda aside: OmegaConf.save(config, aside, resolve=True))
    timer, stopped = Timer(), None
    trainer.callbacks.append(timer)  # pyright: ignore[reportAttributeAccessIssue] (a list, set by a connector)
    try:
        with _interruptible(folder):
            trainer.fit(module, datamodule, ckpt_path=None if checkpoint is None else str(checkpoint))
    except FloatingPointError as error:
        if trainer.is_global_zero:
            write_json(
                results_path, _facts(config, trainer, module, datamodule, timer) | {"error": str(error), "finished": True}
            )
        raise
    results = _facts(config, trainer, module, datamodule, timer)
    if stopped := _early_end(config, trainer):
        print(results.setdefault("stopped", stopped))
    for values in trainer.validate(module, datamodule, verbose=False):
        results["validation"] = values[f"validation/{module.metric}"]
    if config.test:
        results |= run_tests(trainer, module, datamodule)
    if trainer.is_global_zero:
        write_json(results_path, results)
        if config.test:
            results |= rotation_results(module, datamodule, config.angle_images)
        results["finished"] = True
        write_json(results_path, results)
        print(describe(results))
    return results


def _facts(
    config: DictConfig, trainer: pl.Trainer, module: SupervisedModule, datamodule: DataModule, timer: Timer
) -> dict[str, Any]:
    """Results that are known without evaluation; minutes include those before an interruption."""
    averaged = any(isinstance(callback, AveragedWeights) for callback in trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "name": config.name,
        "overrides": list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
        "model": OmegaConf.to_container(config.model, resolve=True),
        "parameters": sum(p.numel() for p in module.parameters()),
        "samples": len(datamodule.datasets["train"]),  # pyright: ignore[reportArgumentType] (all data sets have a length)
        "epochs": trainer.current_epoch,
        "seed": config.seed,
        "metric": module.metric,
        "weights": "averaged" if averaged else "last",
        "minutes": round(timer.time_elapsed() / 60, 2),
    }


def _early_end(config: DictConfig, trainer: pl.Trainer) -> str | None:
    """A sentence if training ended before its last epoch by itself, such as after `max_time`."""
    if not trainer.should_stop or config.epochs is None or not trainer.current_epoch < config.epochs:
        return None
    limit = f"trainer.max_time={config.trainer.max_time}" if config.trainer.max_time is not None else "a callback"
    return f"stopped by {limit} after {trainer.current_epoch} of {config.epochs} epochs, at step {trainer.global_step}"


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Says how to resume after Ctrl-C or a signal to terminate, whose exit status is that of a process that it ended."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(f"\ninterrupted; to resume from the last whole epoch, repeat the command with resume=true {_override_of(folder)}")
        raise


def _override_of(folder: Path) -> str:
    """The override that chooses this folder again."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return f"hydra.sweep.dir={HydraConfig.get().sweep.dir}"
    return f"hydra.run.dir={folder}"


@contextmanager
def ended_by_termination() -> Iterator[None]:
    """Ends the process by SIGTERM within the block as by Ctrl-C, with checkpoints and messages, and with exit status 143.

    Lightning alone would end a training with status 0, and go on with a test.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
