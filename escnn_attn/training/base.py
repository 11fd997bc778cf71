"""What every job shares: one optimizer, schedule and metric, and loaders in an order that a resumed run repeats."""

import math
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class, instantiate
from torch import Tensor, nn
from torchmetrics import Metric


class Learner(pl.LightningModule, ABC):
    """Base class: training with AdamW and a one-cycle schedule, linear warm-up, then cosine decay to zero.

    Args:
        arguments: `locals()` of the subclass's constructor, with `model`, `learning_rate`, `weight_decay`, `warmup` and
            `test_sets` among them; stored in checkpoints with the name of the class, so that `load_learner` needs the
            file alone.
    """

    #: name of the metric, which is logged for each stage and by which validation chooses
    metric: str
    #: "max" where more of the metric is better, "min" where less is
    mode: str

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        own = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        self.test_sets = tuple(own["test_sets"])
        target = f"{type(self).__module__}.{type(self).__qualname__}"
        self.save_hyperparameters({**own, "test_sets": list(self.test_sets), "_target_": target})
        self.model: nn.Module = instantiate(own["model"])
        for name in ("train", "validation", *self.test_sets):
            self.add_module(f"{name}_{self.metric}", self.new_metric())

    @abstractmethod
    def new_metric(self) -> Metric:
        """The metric of one stage, which is updated with what `compare` returns."""

    @abstractmethod
    def compare(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Predictions for a batch and what they should be, one a row."""

    @abstractmethod
    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """What training minimizes; in training mode it may be smoothed."""

    def keep(self, stage: str, prediction: Tensor, truth: Tensor) -> None:
        """Called for every batch of a stage ("train", "validation" or the name of a test set): for subclasses that keep more."""

    def tested(self) -> dict[str, Any]:
        """What was kept of the last test, for the results."""
        return {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._log("train", batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._log("validation", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log(self.test_sets[dataloader_idx], batch)

    def _log(self, stage: str, batch: Any) -> Tensor:
        prediction, truth = self.compare(batch)
        loss = self.loss(prediction, truth)
        metric: Metric = getattr(self, f"{stage}_{self.metric}")
        metric(prediction, truth)
        self.keep(stage, prediction, truth)
        how: dict[str, Any] = {"on_step": False, "on_epoch": True, "add_dataloader_idx": False, "batch_size": len(truth)}
        self.log(f"{stage}/loss", loss, sync_dist=True, **how)
        self.log(f"{stage}/{self.metric}", metric, prog_bar=True, **how)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        # the weights of escnn's convolutions are vectors: coefficients of their kernel bases
        decayed = [p for name, p in trained if p.dim() > 1 or name.endswith(".weights")]
        other = [p for name, p in trained if not (p.dim() > 1 or name.endswith(".weights"))]
        groups = [{"params": decayed}, {"params": other, "weight_decay": 0.0}]
        rate = self.hparams["learning_rate"]
        optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=self.hparams["weight_decay"])
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("the schedule needs to know its end: expected epochs or max_steps, got neither")
        schedule = partial(one_cycle, total=max(1, int(total)), warmup=self.hparams["warmup"])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up over a fraction of the steps, then cosine decay to zero.

    Examples:
        >>> [round(one_cycle(step, 100, 0.1), 2) for step in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    start = warmup * total
    if step < start:
        return min(1.0, (step + 1) / start)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - start) / max(1.0, total - start)))


def load_learner(checkpoint: str | Path, **changes: Any) -> Learner:
    """The module of a checkpoint, of the class that wrote it, in eval mode on the CPU.

    Args:
        checkpoint: file that training wrote.
        changes: arguments that differ from the stored ones, such as `test_sets`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not name a class of learners.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"expected a checkpoint file, got {str(checkpoint)!r}")
    name = torch.load(checkpoint, map_location="cpu", weights_only=True).get("hyper_parameters", {}).get("_target_")
    if name is None or not issubclass(learner := get_class(name), Learner):
        raise ValueError(f"expected a checkpoint of one of the learners of escnn_attn.training, got {name} in {checkpoint}")
    return learner.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True, **changes).eval()
