"""Accuracy and equivariance error of image classifiers by rotation angle."""

from typing import Any

import numpy as np
import torch
from torch import nn

from escnn_attn.data.digits import rotate_images, to_input
from escnn_attn.testing import relative_error

#: rotation angles in degrees
ANGLES = tuple(range(0, 360, 15))


@torch.no_grad()
def accuracy_by_angle(classifier: nn.Module, images: np.ndarray, labels: np.ndarray, resolution: int = 1) -> dict[str, Any]:
    """Measures accuracy, and what changes, under rotation of upright images to each of `ANGLES`.

    Args:
        classifier: of images (b, 1, 29, 29); set to eval mode.
        images: (n, 28, 28), uint8.
        labels: (n,).
        resolution: of the rotation (see `rotate_images`): what changes less at a higher one is due to interpolation.

    Returns:
        `"angles"`, `"accuracy_by_angle"`, `"unchanged_by_angle"`: the share of images that are classified as when upright, and
        `"change_by_angle"`: the change of the logits relative to those of the upright images; at multiples of 90°, where no
        pixel is interpolated, it is the equivariance error.
    """
    classifier.eval()
    dtype = next((p.dtype for p in classifier.parameters() if p.is_floating_point()), torch.float32)
    truth, reference = torch.from_numpy(labels.astype(np.int64)), None
    results: dict[str, Any] = {"angles": ANGLES, "accuracy_by_angle": [], "unchanged_by_angle": [], "change_by_angle": []}
    for angle in ANGLES:
        rotated = rotate_images(images, np.full(len(images), angle), resolution)
        logits = torch.cat([classifier(batch) for batch in to_input(rotated).to(dtype).split(256)])
        reference = logits if reference is None else reference
        found = logits.argmax(dim=1)
        results["accuracy_by_angle"].append(float((found == truth).float().mean()))
        results["unchanged_by_angle"].append(float((found == reference.argmax(dim=1)).float().mean()))
        results["change_by_angle"].append(relative_error(logits, reference))
    return results
