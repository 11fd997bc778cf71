"""Convolutions and poolings of escnn as windows that slide over an image, and whether they keep its rotation center."""

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from escnn_attn.tokens.grid import Grid, OpenGrid
from escnn_attn.tokens.tokens import grid_of


class Window(NamedTuple):
    """Extent, padding and stride of a convolution or pooling, in pixels; padding None for as much as keeps the center.

    Examples:
        >>> Window(extent=9, padding=4, stride=2).rest(29), Window(extent=9, padding=4, stride=2).rest(28)
        (0, 1)
    """

    extent: int
    padding: int | None
    stride: int

    def rest(self, side: int) -> int:
        """Pixels of an image side that the windows leave at its far end: the rotation center moves by half of them."""
        return 0 if self.padding is None else (side + 2 * self.padding - self.extent) % self.stride

    def output(self, side: int) -> int:
        """Number of windows on a side; below 1 where the side is too small for one."""
        if self.padding is None:
            return -(-side // self.stride)
        return (side + 2 * self.padding - self.extent) // self.stride + 1

    def remedies(self, side: int) -> str:
        """What would keep the rotation center of a side that loses it."""
        assert self.padding is not None
        rest, missing = self.rest(side), self.stride - self.rest(side)
        ways = [
            "a SteerableConvolution",
            f"a kernel of {self.extent + rest} instead of {self.extent}",
            f"a stride of 1 instead of {self.stride}",
        ]
        if missing % 2 == 0:
            ways.insert(2, f"a padding of {self.padding + missing // 2} instead of {self.padding}")
        return f"{', '.join(ways)} ({side} + 2·{self.padding} − {self.extent} must be a multiple of the stride)"


@runtime_checkable
class Windowed(Protocol):
    """A convolution or pooling."""

    kernel_size: int | tuple[int, int]
    padding: int | tuple[int, int]
    stride: int | tuple[int, int]


@runtime_checkable
class Dilated(Windowed, Protocol):
    """A convolution that may be dilated."""

    dilation: int | tuple[int, int] | None


def windows_of(module: nn.Module) -> list[Window]:
    """The windows of the convolutions and poolings of a module, in order."""
    found = []
    for part in module.modules():
        if isinstance(part, Windowed) and not hasattr(part, "output_padding"):  # transposed convolutions keep the center
            dilation = (_first(part.dilation) if isinstance(part, Dilated) and part.dilation else None) or 1
            extent = dilation * (_first(part.kernel_size) - 1) + 1
            padding = None if hasattr(part, "centered") else _first(part.padding)
            found.append(Window(extent, padding, _first(part.stride)))
    return found


def _first(size: int | tuple[int, int]) -> int:
    return int(size[0] if isinstance(size, tuple) else size)


def stride_of(windows: Sequence[Window]) -> int:
    """Pixels from token to token: the product of the strides."""
    return math.prod([window.stride for window in windows])  # a list, as compilers take no generator


def keeps_center(windows: Sequence[Window], side: int) -> bool:
    """Whether all windows leave equal margins at both ends of an image side.

    Only then do the centers of image and tokens, about which both rotate, agree.
    """
    for window in windows:
        if window.output(side) < 1 or window.rest(side):
            return False
        side = window.output(side)
    return True


def remedies(windows: Sequence[Window], sides: Sequence[int]) -> str | None:
    """Which change of the first window that moves the rotation center would keep it; None where none does."""
    for side in sides:
        for window in windows:
            if window.output(side) < 1:
                break
            if window.rest(side):
                return window.remedies(side)
            side = window.output(side)
    return None


def fitting_side(windows: Sequence[Window], least: int) -> int | None:
    """The smallest side, at least `least`, of images that keep their rotation center; None if none is near."""
    sides = range(least, least + 2 * stride_of(windows) + 64)
    return next((side for side in sides if keeps_center(windows, side)), None)


def coarse_grid(made: Tensor, fine: Grid, stride: int, spacing: float = 1.0) -> Grid:
    """The grid of what strided windows make, (b, c, height, width), of a finer one: with its mask, weights and disc, at the tokens.

    Args:
        made: the tokens.
        fine: the finer grid.
        stride: of its pixels, from token to token.
        spacing: between the tokens.

    Raises:
        ValueError: if there is a mask or there are weights, and tokens beyond the finer grid.
    """
    if isinstance(fine, OpenGrid):  # without a mask but that of the disc
        grid = grid_of(made, spacing=spacing, periodic=fine.cell is not None)
        return grid.disc() if fine.cut else grid
    count, sides = (made.shape[2], made.shape[3]), (fine.height, fine.width)
    beyond = any((tokens - 1) * stride >= side for tokens, side in zip(count, sides, strict=True))
    if beyond and not (fine.mask is None and fine.quadrature_weights is None):
        raise ValueError(
            f"expected a token at every {stride} of {_times(sides)}, got {_times(count)}: masks and weights are not defined for it"
        )

    def at_tokens(part: Tensor | None) -> Tensor | None:
        return None if part is None else near_tokens(fine.unpad(part[:, None])[:, 0], count, stride)

    mask, weights = at_tokens(fine.mask), at_tokens(fine.quadrature_weights)
    periodic = fine.cell is not None
    grid = grid_of(made, spacing=spacing, mask=mask, quadrature_weights=weights, periodic=periodic)
    return grid.disc() if fine.cut else grid


def near_tokens(of_pixels: Tensor, tokens: tuple[int, int], stride: int) -> Tensor:
    """Weights or a mask (b, height, width) of pixels at tokens, whose centers are `stride` pixels apart, about the same center.

    A token on a pixel takes its value; one between pixels the mean weight of the nearest, and counts if one of them does.
    """
    values = of_pixels.to(torch.float32) if of_pixels.dtype == torch.bool else of_pixels
    for axis, count in zip((1, 2), tokens, strict=True):
        twice = values.shape[axis] - 1 + stride * (2 * torch.arange(count, device=values.device) - count + 1)
        values = (values.index_select(axis, twice // 2) + values.index_select(axis, (twice + 1) // 2)) / 2
    return values > 0 if of_pixels.dtype == torch.bool else values


@lru_cache(maxsize=1024)
def warn_off_center(name: str, windows: tuple[Window, ...], sides: tuple[int, ...]) -> None:
    """Warns, once in a process, where the windows of a module move the rotation center of a grid."""
    advice = remedies(windows, sides)
    if advice is not None:
        fitting = [fitting_side(windows, side) or side for side in sides]
        warnings.warn(
            f"{name} moves the rotation center of a grid of {_times(sides)}, so that its output is not equivariant: resample to "
            f"{_times(fitting)} about the center (padding on one side would move it), or take {advice}",
            stacklevel=4,
        )


def _times(sides: Sequence[int]) -> str:
    return " × ".join(map(str, sides))
