"""LightningModule of image classification."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from escnn_attn.analysis.comparison import pack
from escnn_attn.arguments import require_number
from escnn_attn.models import SteerableTransformer
from escnn_attn.models.config import Trust
from escnn_attn.pretrained import read_config, resolve
from escnn_attn.training._images import ImageModule
from escnn_attn.training.module import Model


class ImageClassifier(ImageModule):
    """Classification of images (b, c, height, width) by cross-entropy; predictions are logits (b, num_classes).

    Args:
        model: network from images to logits, or its configuration (see `SupervisedModule`).
        num_classes: number of classes.
        learning_rate: peak learning rate.
        weight_decay: of weights; gains and biases are not decayed.
        warmup: fraction of the steps with rising learning rate.
        label_smoothing: of the cross-entropy in training.
        augmentation: arguments of `RandomDeformation`, applied to training images; None for no augmentation.
        normalization: `mean` and `std`, each a number or one for each channel, that images in [0, 1] are shifted and divided by
            before the network; None for no normalization.
        test_sets: names of the test sets, in the order of their loaders.

    Raises:
        ValueError: if a number is out of range, or, with the first batch, if the logits are not `num_classes`.

    Examples:
        >>> classifier = ImageClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)))
        >>> classifier(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    metric, mode = "accuracy", "max"

    def __init__(
        self,
        model: Model,
        *,
        num_classes: int = 10,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        label_smoothing: float = 0.0,
        augmentation: Mapping[str, float] | None = None,
        normalization: Mapping[str, Any] | None = None,
        test_sets: Sequence[str] = ("test",),
    ) -> None:
        self.label_smoothing = require_number("label_smoothing", label_smoothing, most=1)
        super().__init__(
            model,
            num_classes=num_classes,
            augmentation=augmentation,
            normalization=normalization,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
            test_sets=test_sets,
        )

    @classmethod
    def from_pretrained(cls, name: str | Path, test_sets: Sequence[str], *, trust: Trust = ()) -> "ImageClassifier":
        """Loads the classifier with trained weights of a name, folder or repository, in eval mode; see `SteerableTransformer.from_pretrained`."""
        folder = resolve(name)
        model = read_config(folder)["model"]
        network = SteerableTransformer.from_pretrained(folder, trust=trust)
        module = cls(network, num_classes=model.get("num_classes", 10), test_sets=test_sets)
        module.hparams["model"] = model
        return module.eval()

    def new_metric(self) -> Metric:
        return MulticlassAccuracy(self.num_classes, average="micro")

    def inputs(self, batch: Tensor | Sequence[Tensor]) -> Tensor:
        """Returns the images of a batch (images, labels), (images,) or images, deformed in training mode."""
        images = super().inputs(batch)
        return self.augmentation(images) if self.training and self.augmentation else images

    def targets(self, batch: Sequence[Tensor]) -> Tensor:
        labels = super().targets(batch)
        if labels.dim() > 2:
            raise TypeError(
                f"expected a label for each image, got targets {tuple(labels.shape)}: masks are for module=segmentation"
            )
        return labels

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        if predictions.shape[1:] != (self.num_classes,):
            raise ValueError(
                f"expected a model with logits of num_classes={self.num_classes} classes, got logits {tuple(predictions.shape)}"
            )
        return F.cross_entropy(predictions, targets, label_smoothing=self.label_smoothing if self.training else 0.0)

    def on_test_start(self) -> None:
        self.hits: dict[str, list[Tensor]] = {name: [] for name in self.test_sets}

    def on_predictions(self, stage: str, predictions: Tensor, targets: Tensor) -> None:
        if stage in self.test_sets:
            self.hits[stage].append((predictions.argmax(dim=1) == targets).cpu())

    def test_results(self) -> dict[str, Any]:
        """Returns the correctly classified images of each test set as packed bits; nothing if several processes shared them."""
        if self.trainer.world_size > 1:
            return {}
        return {"correct": {name: pack(torch.cat(hits).numpy()) for name, hits in self.hits.items()}}
