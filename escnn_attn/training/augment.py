"""Random deformations of training images."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class RandomDeformation:
    """Rotates, scales, shifts and bends each image at random, in one bicubic interpolation.

    Args:
        degrees: largest rotation, either way; 180 for all.
        scale: largest relative change of size.
        shift: largest shift along each axis, in pixels.
        elastic: standard deviation of the displacement of each of 5 × 5 handles, in pixels; a bicubic spline is between
            them (elastic distortions of Simard et al., 2003, with few parameters).
        probability: with which an image is changed at all.

    Shape:
        (b, c, h, w), unchanged.

    Examples:
        >>> RandomDeformation(degrees=180, elastic=1.0)(torch.rand(2, 1, 29, 29)).shape
        torch.Size([2, 1, 29, 29])
    """

    def __init__(
        self, degrees: float = 0.0, scale: float = 0.0, shift: float = 0.0, elastic: float = 0.0, probability: float = 1.0
    ) -> None:
        if min(degrees, shift, elastic) < 0 or not 0 <= scale < 1 or not 0 <= probability <= 1:
            raise ValueError(
                "expected degrees, shift and elastic that are not negative, a scale below 1 and a probability, got "
                f"{degrees}, {shift}, {elastic}, {scale} and {probability}"
            )
        self.degrees, self.scale, self.shift, self.elastic = degrees, scale, shift, elastic
        self.probability = probability

    def __call__(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        angle, size, right, up = (2 * torch.rand(4, count, device=images.device) - 1).unbind(0)
        angle, size = angle * math.radians(self.degrees), 1 + size * self.scale
        cos, sin = angle.cos() * size, angle.sin() * size
        # the grid is in units of half the side
        across, down = right * 2 * self.shift / width, up * 2 * self.shift / height
        matrices = torch.stack([torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)], 1)
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        if self.elastic:
            units = torch.tensor([2 * self.elastic / width, 2 * self.elastic / height], device=images.device)
            handles = torch.randn(count, 2, 5, 5, device=images.device)
            bends = F.interpolate(handles, size=(height, width), mode="bicubic", align_corners=True)
            grid = grid + bends.permute(0, 2, 3, 1) * units
        moved = F.grid_sample(images, grid.to(images.dtype), mode="bicubic", align_corners=False).clamp(0, 1)
        changed = torch.rand(count, device=images.device) < self.probability
        return torch.where(changed[:, None, None, None], moved, images)
