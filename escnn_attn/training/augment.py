"""Random deformations of training images."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class RandomDeformation:
    """Random rotation, scaling, shift and elastic distortion of each image, in one bicubic interpolation.

    Args:
        degrees: largest rotation in either direction; 180 covers all rotations.
        scale: largest relative change of size.
        shift: largest shift along each axis, in pixels.
        elastic: standard deviation in pixels of the displacements of 5 × 5 control points, interpolated by a bicubic
            spline (elastic distortions of Simard et al., 2003, with few parameters).
        p: probability that an image is deformed.

    Shape:
        (b, c, height, width), unchanged.

    Raises:
        ValueError: if an argument is negative, `scale` is not below 1 or `p` is above 1.

    Examples:
        >>> RandomDeformation(degrees=180, elastic=1.0)(torch.rand(2, 1, 29, 29)).shape
        torch.Size([2, 1, 29, 29])
    """

    def __init__(
        self, degrees: float = 0.0, scale: float = 0.0, shift: float = 0.0, elastic: float = 0.0, p: float = 1.0
    ) -> None:
        if min(degrees, shift, elastic) < 0 or not 0 <= scale < 1 or not 0 <= p <= 1:
            raise ValueError(
                "expected degrees, shift and elastic of at least 0, a scale in [0, 1) and p in [0, 1], got "
                f"{degrees}, {shift}, {elastic}, {scale} and {p}"
            )
        self.degrees, self.scale, self.shift, self.elastic, self.p = degrees, scale, shift, elastic, p

    def __call__(self, images: Tensor) -> Tensor:
        grid = F.affine_grid(self._matrices(images), list(images.shape), align_corners=False)
        if self.elastic:
            grid = grid + self._displacements(images)
        deformed = F.grid_sample(images, grid.to(images.dtype), mode="bicubic", align_corners=False).clamp(0, 1)
        chosen = torch.rand(len(images), device=images.device) < self.p
        return torch.where(chosen[:, None, None, None], deformed, images)

    def _matrices(self, images: Tensor) -> Tensor:
        """Affine maps (b, 2, 3) of sampling positions, in units of half the side."""
        count, _, height, width = images.shape
        angle, size, right, up = (2 * torch.rand(4, count, device=images.device) - 1).unbind(0)
        angle, size = angle * math.radians(self.degrees), 1 + size * self.scale
        cos, sin = angle.cos() * size, angle.sin() * size
        x, y = right * 2 * self.shift / width, up * 2 * self.shift / height
        return torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)

    def _displacements(self, images: Tensor) -> Tensor:
        """Elastic displacements (b, h, w, 2) of sampling positions, in units of half the side."""
        count, _, height, width = images.shape
        units = torch.tensor([2 * self.elastic / width, 2 * self.elastic / height], device=images.device)
        control_points = torch.randn(count, 2, 5, 5, device=images.device)
        smooth = F.interpolate(control_points, size=(height, width), mode="bicubic", align_corners=True)
        return smooth.permute(0, 2, 3, 1) * units
