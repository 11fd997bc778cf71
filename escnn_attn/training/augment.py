"""Deformed copies of images: random ones for training, and turned ones whose predictions are averaged."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escnn_attn.arguments import require_integer


class RandomDeformation:
    """Random rotation, scaling, shift, reflection and elastic distortion of each image, in one bicubic interpolation.

    Args:
        degrees: largest rotation in either direction; 180 covers all rotations.
        scale: largest relative change of size.
        shift: largest shift along each axis, in pixels.
        elastic: standard deviation in pixels of the displacements of 5 × 5 control points, interpolated by a bicubic
            spline (elastic distortions of Simard et al., 2003, with few parameters).
        p: probability that an image is deformed.
        flip: probability that an image that is deformed is also reflected, left to right.

    Shape:
        (b, c, height, width), in [0, 1], unchanged.

    Raises:
        ValueError: if an argument is negative, `scale` is not below 1, or `p` or `flip` above 1.

    Examples:
        >>> RandomDeformation(degrees=180, elastic=1.0)(torch.rand(2, 1, 29, 29)).shape
        torch.Size([2, 1, 29, 29])
    """

    def __init__(
        self,
        degrees: float = 0.0,
        scale: float = 0.0,
        shift: float = 0.0,
        elastic: float = 0.0,
        p: float = 1.0,
        flip: float = 0.0,
    ) -> None:
        if min(degrees, shift, elastic) < 0 or not 0 <= scale < 1 or not (0 <= p <= 1 and 0 <= flip <= 1):
            raise ValueError(
                "expected degrees, shift and elastic of at least 0, a scale in [0, 1), p and flip in [0, 1], got "
                f"{degrees}, {shift}, {elastic}, {scale}, {p} and {flip}"
            )
        self.degrees, self.scale, self.shift, self.elastic, self.p, self.flip = degrees, scale, shift, elastic, p, flip

    def __call__(self, images: Tensor) -> Tensor:
        grid, chosen = self._draw(images)
        return torch.where(chosen[:, None, None, None], _sampled(images, grid), images)

    def with_masks(self, images: Tensor, masks: Tensor, outside: int) -> tuple[Tensor, Tensor]:
        """Deforms images and their masks (b, height, width) of class indices alike; `outside` is the label of what comes into view.

        Examples:
            >>> images, masks = torch.rand(2, 3, 29, 29), torch.ones(2, 29, 29, dtype=torch.long)
            >>> _, turned = RandomDeformation(degrees=180).with_masks(images, masks, outside=255)
            >>> turned[:, 14, 14].tolist(), sorted(turned.unique().tolist())
            ([1, 1], [1, 255])
        """
        grid, chosen = self._draw(images)
        shifted = (masks[:, None] + 1).to(torch.float32)  # zero is what `grid_sample` finds outside
        labels = F.grid_sample(shifted, grid.float(), mode="nearest", align_corners=False)[:, 0].round().to(masks.dtype) - 1
        labels = torch.where(labels < 0, outside, labels)
        chosen = chosen[:, None, None]
        return torch.where(chosen[..., None], _sampled(images, grid), images), torch.where(chosen, labels, masks)

    def _draw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Sampling positions (b, h, w, 2), in units of half the side, and which images (b,) are deformed."""
        grid = _affine_grid(self._matrices(images), images)
        if self.elastic:
            grid = grid + self._displacements(images)
        return grid, torch.rand(len(images), device=images.device) < self.p

    def _matrices(self, images: Tensor) -> Tensor:
        """Affine maps (b, 2, 3) of sampling positions, in units of half the side."""
        count, _, height, width = images.shape
        angle, size, right, up = (2 * torch.rand(4, count, device=images.device) - 1).unbind(0)
        angle, size = angle * math.radians(self.degrees), 1 + size * self.scale
        cos, sin = angle.cos() * size, angle.sin() * size
        x, y = right * 2 * self.shift / width, up * 2 * self.shift / height
        aspect = height / width  # units differ by axis: without it a rotation would shear an image that is not square
        matrices = torch.stack([torch.stack([cos, -sin * aspect, x], 1), torch.stack([sin / aspect, cos, y], 1)], 1)
        if self.flip:  # no draw without: that of older trainings
            reflected = torch.rand(count, device=images.device) < self.flip
            matrices[:, :, 0] = torch.where(reflected[:, None], -matrices[:, :, 0], matrices[:, :, 0])
        return matrices

    def _displacements(self, images: Tensor) -> Tensor:
        """Elastic displacements (b, h, w, 2) of sampling positions, in units of half the side."""
        count, _, height, width = images.shape
        units = torch.tensor([2 * self.elastic / width, 2 * self.elastic / height], device=images.device)
        control_points = torch.randn(count, 2, 5, 5, device=images.device)
        smooth = F.interpolate(control_points, size=(height, width), mode="bicubic", align_corners=True)
        return smooth.permute(0, 2, 3, 1) * units


class TurnedAverage(nn.Module):
    """A classifier that averages the probabilities of another over copies of each image, turned by angles below 90°.

    A steerable network predicts the same for a quarter turn, but not quite for other angles, at which pixels are interpolated.

    Args:
        classifier: from images (b, c, height, width) to logits (b, n).
        turns: number of copies, at equal distances; 1 for the image alone.

    Shape:
        images (b, c, height, width) to logarithms of mean probabilities (b, n).

    Raises:
        TypeError, ValueError: if `turns` is not a positive integer.

    Examples:
        >>> classifier = TurnedAverage(nn.Sequential(nn.Flatten(), nn.Linear(841, 10)), turns=4)
        >>> classifier(torch.rand(2, 1, 29, 29)).exp().sum(dim=1).round(decimals=4).tolist()
        [1.0, 1.0]
    """

    def __init__(self, classifier: nn.Module, turns: int) -> None:
        super().__init__()
        self.classifier, self.turns = classifier, require_integer("turns", turns)

    def forward(self, images: Tensor) -> Tensor:
        logits = [self.classifier(images)]
        for index in range(1, self.turns):
            angle = torch.tensor(index * math.pi / 2 / self.turns, device=images.device)
            rows = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).unflatten(0, (2, 2))
            matrices = F.pad(rows, (0, 1)).expand(len(images), 2, 3)
            logits.append(self.classifier(_sampled(images, _affine_grid(matrices, images))))
        return torch.stack(logits).log_softmax(dim=-1).logsumexp(dim=0) - math.log(self.turns)


def _affine_grid(matrices: Tensor, images: Tensor) -> Tensor:
    """Sampling positions (b, h, w, 2) of affine maps (b, 2, 3): half precision, in which autocast multiplies, is too coarse for pixels."""
    with torch.autocast(images.device.type, enabled=False):
        return F.affine_grid(matrices, list(images.shape), align_corners=False)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid.to(images.dtype), mode="bicubic", align_corners=False).clamp(0, 1)
