"""LightningModule of segmentation: the class of each pixel."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from escnn.nn import GeometricTensor
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex

from escnn_attn.arguments import require_integer
from escnn_attn.data.preparation import IGNORED
from escnn_attn.training._images import ImageModule
from escnn_attn.training.module import Model


class ImageSegmentation(ImageModule):
    """Segmentation of images (b, c, height, width) by the cross-entropy of each pixel; predictions are logits (b, num_classes, height, width).

    The metric is the mean intersection over union of the classes that occur. Rotating an image rotates the predictions of a network
    of scalar fields.

    Args:
        model: network from images to logits at each pixel, a tensor or a `GeometricTensor`, or its configuration (see
            `SupervisedModule`).
        num_classes: number of classes, the background included.
        learning_rate: peak learning rate.
        weight_decay: of weights; gains and biases are not decayed.
        warmup: fraction of the steps with rising learning rate.
        ignore_index: label of pixels that do not count, also of those that a deformation brings into view.
        augmentation: arguments of `RandomDeformation`, applied alike to training images and their masks; None for no augmentation.
        normalization: `mean` and `std`, as of `ImageClassifier`.
        test_sets: names of the test sets, in the order of their loaders.

    Raises:
        ValueError: if a number is out of range, or, with the first batch, if the logits are not `num_classes` at each pixel.

    Examples:
        >>> import torch
        >>> module = ImageSegmentation(torch.nn.Conv2d(3, 6, 3, padding=1), num_classes=6)
        >>> module(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 6, 32, 32])
    """

    metric, mode = "iou", "max"

    def __init__(
        self,
        model: Model,
        *,
        num_classes: int,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        ignore_index: int = IGNORED,
        augmentation: Mapping[str, float] | None = None,
        normalization: Mapping[str, Any] | None = None,
        test_sets: Sequence[str] = ("test",),
    ) -> None:
        self.ignore_index = require_integer("ignore_index", ignore_index, None)
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

    def new_metric(self) -> Metric:
        return MulticlassJaccardIndex(self.num_classes, ignore_index=self.ignore_index)

    def forward(self, images: Tensor) -> Tensor:
        found = super().forward(images)
        logits = found.tensor if isinstance(found, GeometricTensor) else found
        expected = (len(images), self.num_classes, *images.shape[2:])
        if logits.shape != expected:
            raise ValueError(
                f"expected a model with num_classes={self.num_classes} logits at each pixel, {expected}, got {tuple(logits.shape)}"
            )
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.augmentation:
            batch = self.augmentation.with_masks(self.inputs(batch), self.targets(batch), self.ignore_index)
        return super().training_step(batch, batch_idx)

    def targets(self, batch: Sequence[Tensor]) -> Tensor:
        masks = super().targets(batch)
        if masks.dim() != 3:
            raise TypeError(
                f"expected masks (b, height, width), such as those of data=segmentation, got targets {tuple(masks.shape)}"
            )
        return masks

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        total = F.cross_entropy(predictions, targets, ignore_index=self.ignore_index, reduction="sum")
        return total / (targets != self.ignore_index).sum().clamp(min=1)  # not NaN where no pixel counts
