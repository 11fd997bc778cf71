"""The LightningModule that trains an image classifier."""

import math
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy


class ImageClassifier(pl.LightningModule):
    """Cross-entropy training with AdamW and a one-cycle schedule: linear warm-up, then cosine decay to zero.

    Args:
        model: configuration of the network, plain numbers and names with a `_target_` that Hydra instantiates; stored
            in checkpoints, so that `load_from_checkpoint` needs the file alone.
        classes: number of classes.
        learning_rate: the highest.
        weight_decay: of weights; gains and biases are not decayed.
        warmup: fraction of the steps.
        label_smoothing: of the cross-entropy.
        test_sets: names of the test sets, in the order of their loaders.
    """

    def __init__(
        self,
        model: dict[str, Any],
        *,
        classes: int = 10,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        label_smoothing: float = 0.0,
        test_sets: tuple[str, ...] = ("test",),
    ) -> None:
        super().__init__()
        test_sets = tuple(test_sets)
        self.save_hyperparameters({**_arguments(locals()), "test_sets": list(test_sets)})
        self.model: nn.Module = instantiate(model)
        for name in ("train", "validation", *test_sets):
            self.add_module(f"{name}_accuracy", MulticlassAccuracy(classes, average="micro"))
        self.test_sets = test_sets

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._log("train", batch, self.hparams["label_smoothing"])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._log("validation", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log(self.test_sets[dataloader_idx], batch)

    def _log(self, stage: str, batch: tuple[Tensor, Tensor], smoothing: float = 0.0) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        metric: MulticlassAccuracy = getattr(self, f"{stage}_accuracy")
        metric(logits, labels)
        how: dict[str, Any] = {"on_step": False, "on_epoch": True, "add_dataloader_idx": False, "batch_size": len(labels)}
        self.log(f"{stage}/loss", loss, sync_dist=True, **how)
        self.log(f"{stage}/accuracy", metric, prog_bar=True, **how)
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

    Example:
        >>> [round(one_cycle(step, 100, 0.1), 2) for step in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    start = warmup * total
    if step < start:
        return min(1.0, (step + 1) / start)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - start) / max(1.0, total - start)))


def _arguments(names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name not in ("self", "__class__")}
