"""What the modules of images share: augmentation, normalization, and whether a network fits the data."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from escnn_attn.arguments import require_integer, require_items, require_number
from escnn_attn.training.augment import RandomDeformation
from escnn_attn.training.module import Model, SupervisedModule


class ImageModule(SupervisedModule):
    """Base class of modules that tell classes on images (b, c, height, width) in [0, 1].

    Arguments as of `SupervisedModule`, and `num_classes`, `augmentation` and `normalization` as of `ImageClassifier`.
    """

    def __init__(
        self,
        model: Model,
        *,
        num_classes: int,
        augmentation: Mapping[str, float] | None,
        normalization: Mapping[str, Any] | None,
        **options: Any,
    ) -> None:
        self.num_classes = require_integer("num_classes", num_classes, 2)
        self.augmentation = RandomDeformation(**augmentation) if augmentation else None
        self.normalization = Normalization(**normalization) if normalization else None
        super().__init__(model, **options)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        require_fitting(self.model, self.num_classes, self.hparams.get("data"))

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.normalization(images) if self.normalization else images)

    def inputs(self, batch: Tensor | Sequence[Tensor]) -> Tensor:
        """Returns the images of a batch (images, targets), (images,) or images."""
        if not isinstance(batch, Tensor) and len(batch) > 2:
            raise TypeError(f"expected data of images and labels, such as data=digits, got a batch {type(batch).__name__}")
        return batch if isinstance(batch, Tensor) else batch[0]

    def targets(self, batch: Sequence[Tensor]) -> Tensor:
        if isinstance(batch, Tensor) or len(batch) != 2:
            raise TypeError(f"expected a batch of images and labels, got a {type(batch).__name__} without labels")
        return batch[1]


class Normalization:
    """Shifts and scales images (b, c, height, width) in [0, 1] by the mean and standard deviation of their channels.

    Raises:
        TypeError, ValueError: for a `mean` that is no number from 0 to 1, a `std` that is not above 0, and, at a call, for another
            number of channels.
    """

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0) -> None:
        self.mean = [require_number("normalization.mean", value, most=1) for value in _listed("normalization.mean", mean)]
        self.std = [require_number("normalization.std", value, above=0) for value in _listed("normalization.std", std)]

    def __call__(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"expected normalization.{name} of one number, or one for each of {channels} channels, got {values}"
                )
        mean, std = (torch.tensor(values, dtype=images.dtype, device=images.device) for values in (self.mean, self.std))
        return (images - mean[:, None, None]) / std[:, None, None]


def _listed(name: str, value: Any) -> Sequence[Any]:
    return require_items(name, value) if hasattr(value, "__iter__") else [value]


def require_fitting(model: nn.Module, num_classes: int, data: Mapping[str, Any] | None) -> None:
    """Checks that a network has as many classes and input channels as the data that a data module describes.

    Raises:
        ValueError: that names the keys of the configuration.
    """
    described = data or {}
    names, channels = described.get("class_names"), described.get("preparation", {}).get("channels")
    if names is not None and len(names) != num_classes:
        raise ValueError(f"expected model.num_classes={len(names)} for the classes {names} of the data, got {num_classes}")
    taken = getattr(getattr(model, "in_type", None), "size", channels)
    if channels is not None and taken != channels:
        raise ValueError(
            f"expected model.in_type={channels} for images of data.channels={channels}, got a network of {taken} channels"
        )
