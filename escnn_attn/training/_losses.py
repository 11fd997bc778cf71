"""Losses of regression."""

import torch.nn.functional as F
from torch import Tensor


def mean_squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """The mean of squared differences; a ValueError for other shapes than those of the targets, which torch would broadcast."""
    if predictions.shape != targets.shape:
        raise ValueError(
            f"expected predictions of shape {tuple(targets.shape)}, as the targets, got {tuple(predictions.shape)}"
        )
    return F.mse_loss(predictions, targets)
