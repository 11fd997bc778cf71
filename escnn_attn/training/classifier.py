"""The LightningModule that trains an image classifier."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from escnn_attn.analysis.comparison import pack
from escnn_attn.models import SteerableTransformer
from escnn_attn.pretrained import read_config, resolve
from escnn_attn.training.augment import RandomDeformation
from escnn_attn.training.base import Learner


class ImageClassifier(Learner):
    """Cross-entropy training with AdamW and a one-cycle schedule: linear warm-up, then cosine decay to zero.

    Args:
        model: configuration of the network, plain numbers and names with a `_target_` that Hydra instantiates; stored
            in checkpoints, so that `load_from_checkpoint` needs the file alone.
        classes: number of classes.
        learning_rate: the highest.
        weight_decay: of weights; gains and biases are not decayed.
        warmup: fraction of the steps.
        label_smoothing: of the cross-entropy in training.
        augmentation: arguments of `RandomDeformation`, which training images go through; None for none.
        test_sets: names of the test sets, in the order of their loaders.
    """

    metric, mode = "accuracy", "max"

    def __init__(
        self,
        model: dict[str, Any],
        *,
        classes: int = 10,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        label_smoothing: float = 0.0,
        augmentation: dict[str, float] | None = None,
        test_sets: tuple[str, ...] = ("test",),
    ) -> None:
        super().__init__(locals())
        self.augment = RandomDeformation(**augmentation) if augmentation else None

    @classmethod
    def from_pretrained(cls, name: str | Path, test_sets: tuple[str, ...]) -> "ImageClassifier":
        """The classifier with the trained weights of that name (see `escnn_attn.pretrained`), in eval mode."""
        learner = cls(read_config(resolve(name))["model"], test_sets=test_sets)
        learner.model = SteerableTransformer.from_pretrained(name)
        return learner.eval()

    def new_metric(self) -> Metric:
        return MulticlassAccuracy(self.hparams["classes"], average="micro")

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def compare(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if len(batch) != 2:
            raise TypeError(f"expected data of images and labels, such as data=digits, got a batch {type(batch).__name__}")
        images, labels = batch
        if self.training and self.augment is not None:
            images = self.augment(images)
        return self(images), labels

    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        smoothing = self.hparams["label_smoothing"] if self.training else 0.0
        return F.cross_entropy(prediction, truth, label_smoothing=smoothing)

    def on_test_start(self) -> None:
        self.hits: dict[str, list[Tensor]] = {name: [] for name in self.test_sets}

    def keep(self, stage: str, prediction: Tensor, truth: Tensor) -> None:
        if stage in self.test_sets:
            self.hits[stage].append((prediction.argmax(dim=1) == truth).cpu())

    def tested(self) -> dict[str, Any]:
        """Which images of each test set were classified correctly, packed; nothing where several processes share them."""
        if self.trainer.world_size > 1:
            return {}
        return {"correct": {name: pack(torch.cat(hits).numpy()) for name, hits in self.hits.items()}}
