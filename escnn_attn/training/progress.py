"""A progress bar for terminals of 80 columns."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import CustomBarColumn, ProcessingSpeedColumn, RichProgressBarTheme

from escnn_attn.training.module import metric_of

#: batches from one shown loss to the next where it is on another device, whose work would be waited for
EVERY = 20


class CompactProgressBar(RichProgressBar):
    """A line for each epoch: batches, time, the loss of the last batch, the learning rate, and the metric on validation."""

    def __init__(self) -> None:
        super().__init__(leave=True, theme=RichProgressBarTheme(metrics_format=".4g"))
        self.loss = float("nan")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.strategy.root_device.type == "cpu" or batch_idx % EVERY == 0:
            self.loss = float(outputs["loss"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        shown: dict[str, Any] = {"loss": self.loss}
        if trainer.optimizers:
            shown["rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        name, _ = metric_of(pl_module)
        if name in trainer.callback_metrics:
            shown[name.partition("/")[2]] = float(trainer.callback_metrics[name])
        return shown

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        wide = (CustomBarColumn, ProcessingSpeedColumn)
        return [column for column in super().configure_columns(trainer) if not isinstance(column, wide)]
