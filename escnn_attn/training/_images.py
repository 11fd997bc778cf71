"""What the modules of images share: normalization, and whether a network fits the data."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from escnn_attn.arguments import require_items, require_number


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
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, images.shape[1]):
                raise ValueError(
                    f"expected normalization.{name} of one number, or one for each of {images.shape[1]} channels, got {getattr(self, name)}"
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
    data = data or {}
    names = data.get("class_names")
    if names is not None and len(names) != num_classes:
        raise ValueError(f"expected model.num_classes={len(names)} for the classes {names} of the data, got {num_classes}")
    channels, in_type = data.get("preparation", {}).get("channels"), getattr(model, "in_type", None)
    if None not in (channels, in_type) and in_type.size != channels:  # pyright: ignore[reportOptionalMemberAccess]
        raise ValueError(
            f"expected model.in_type={channels} for images of data.channels={channels}, got a network of {in_type.size} channels"  # pyright: ignore[reportOptionalMemberAccess]
        )
