"""Checkpoints: whole or not there, the best by the metric of a module, and the state at an interruption."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from escnn_attn.files import write_atomically
from escnn_attn.training.module import metric_of


class AtomicCheckpointIO(TorchCheckpointIO):
    """Plugin of the trainer that writes checkpoints aside in the same folder, syncs them to the disk, and renames them.

    A kill or a full disk during the writing leaves the checkpoint before. Lightning writes to the system's folder of temporary
    files, and moving from there to another file system is no single step.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), lambda aside: torch.save(checkpoint, aside))


class BestCheckpoint(ModelCheckpoint):
    """Checkpoint of the best epoch on validation, by the `metric` and `mode` of the `SupervisedModule`.

    Args:
        dirpath: folder of the checkpoint.
        filename: of the checkpoint, without its suffix.
    """

    def __init__(self, dirpath: str, filename: str = "best") -> None:
        super().__init__(dirpath=dirpath, filename=filename, enable_version_counter=False)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.monitor, self.mode = metric_of(pl_module)
        super().setup(trainer, pl_module, stage)


class InterruptedCheckpoint(Checkpoint):
    """Checkpoint of the state at an interruption by Ctrl-C or a signal, once a step has been made.

    Lightning's `OnExceptionCheckpoint` is also what a later `trainer.fit` without `ckpt_path` continues from. This one is
    loaded only if it is named: it is from within an epoch, which a resumed run repeats from its start instead.

    Args:
        dirpath: folder of the checkpoint.
        filename: of the checkpoint, without its suffix.
    """

    def __init__(self, dirpath: str, filename: str = "interrupted") -> None:
        self.path = Path(dirpath) / f"{filename}.ckpt"

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit)) and trainer.state.fn == TrainerFn.FITTING
        if interrupted and trainer.global_step > 0:
            trainer.save_checkpoint(self.path)
