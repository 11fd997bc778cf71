"""From image files of any size to network input: reading, and resizing about the center."""

import math
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from escnn_attn.arguments import require_integer, require_items

#: label of pixels that do not count
IGNORED = 255


class ImagePreparation:
    """Turns an image of any size into the input (c, height, width) of a network, in [0, 1], resized about its center.

    Both axes are scaled alike, with an antialiased bicubic filter, and the center of the image becomes that of the input exactly:
    what is cut off, or filled with black, is as wide on the left as on the right and at the top as at the bottom, in fractions of a
    pixel where need be, also between odd and even sides.

    Args:
        image_size: side of the input in pixels, or height and width.
        channels: 1 for grey, 3 for RGB; images of the other kind are converted.
        fit: `"cover"` cuts off what is outside of the shape of the input, `"contain"` shows the whole image on black.

    Raises:
        TypeError, ValueError: for other values.

    Examples:
        >>> from PIL import Image
        >>> ImagePreparation(64)(Image.new("L", (320, 200))).shape
        torch.Size([3, 64, 64])
    """

    def __init__(self, image_size: int | Iterable[int] = 64, channels: int = 3, fit: str = "cover") -> None:
        sides = require_items("image_size", image_size, 2) if isinstance(image_size, Iterable) else [image_size] * 2
        self.height, self.width = (require_integer("image_size", side, 2) for side in sides)
        if require_integer("channels", channels) not in (1, 3):
            raise ValueError(f"expected channels=1 for grey images or channels=3 for RGB, got {channels}")
        if fit not in ("cover", "contain"):
            raise ValueError(f'expected fit="cover" or fit="contain", got {fit!r}')
        self.channels, self.fit = int(channels), fit

    def settings(self) -> dict[str, Any]:
        """The arguments as plain values."""
        return {"image_size": [self.height, self.width], "channels": self.channels, "fit": self.fit}

    def __call__(self, image: Image.Image) -> Tensor:
        image = image.convert("L" if self.channels == 1 else "RGB")
        left, top, step = self._place(image.size)
        margins = max(0, math.ceil(-left)), max(0, math.ceil(-top))
        if any(margins):
            image = ImageOps.expand(image, border=margins)
        # rounding must not leave the image
        left, top = max(0.0, left + margins[0]), max(0.0, top + margins[1])
        box = left, top, min(left + self.width * step, image.width), min(top + self.height * step, image.height)
        resized = image.resize((self.width, self.height), Image.Resampling.BICUBIC, box=box)
        pixels = torch.from_numpy(np.array(resized, np.float32) / 255)
        return pixels.reshape(self.height, self.width, self.channels).permute(2, 0, 1).contiguous()

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """Labels (height, width) at the pixels of the input, of those (h, w) of an image: the nearest, and 255 outside of it."""
        left, top, step = self._place((labels.shape[1], labels.shape[0]))
        return _nearest(labels, (top, left), step, (self.height, self.width))

    def restore(self, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Labels (h, w) at the pixels of an image of a size (w, h), of those at the pixels of the input: the inverse of `mask`."""
        left, top, step = self._place(size)
        return _nearest(labels, (-top / step, -left / step), 1 / step, (size[1], size[0]))

    def _place(self, size: tuple[int, int]) -> tuple[float, float, float]:
        """Left and top edge of the input on an image of a size (w, h), and the side of a pixel of the input, in its pixels."""
        ratios = size[0] / self.width, size[1] / self.height
        step = min(ratios) if self.fit == "cover" else max(ratios)
        return (size[0] - step * self.width) / 2, (size[1] - step * self.height) / 2, step


def _nearest(labels: np.ndarray, start: tuple[float, float], step: float, shape: tuple[int, int]) -> np.ndarray:
    """Labels nearest to the pixels of a grid that starts at (y, x), 255 where there are none."""
    picked = np.full(shape, IGNORED, labels.dtype)
    found = [_indices(s, step, n, size) for s, n, size in zip(start, shape, labels.shape, strict=True)]
    inside = [(i >= 0) & (i < size) for i, size in zip(found, labels.shape, strict=True)]
    picked[np.ix_(*inside)] = labels[np.ix_(*(i[chosen] for i, chosen in zip(found, inside, strict=True)))]
    return picked


def _indices(start: float, step: float, count: int, size: int) -> np.ndarray:
    """Indices of the nearest pixels; of two that are as near, that towards the center: the mirror image gives mirrored labels."""
    at = np.round(start + (np.arange(count) + 0.5) * step, 6)
    return np.where(at < size / 2, np.floor(at), np.ceil(at) - 1).astype(int)


def read_image(path: Path) -> Image.Image:
    """Reads an image, turned upright by its EXIF tag, with 8 bits per channel; what is transparent is on black.

    Raises:
        ValueError: that names the file, if it is damaged or no image.
    """
    try:
        with Image.open(path) as stored:
            return _plain(ImageOps.exif_transpose(stored))
    except Exception as error:  # noqa: BLE001  (of many kinds, by the format and the damage)
        raise ValueError(f"expected an image, got the unreadable {path}: {error}") from None


def _require_known_range(image: Image.Image) -> None:
    """Raises a ValueError for floating-point pixels, whose range no format tells."""
    if image.mode == "F":
        raise ValueError("floating-point numbers, whose range is not known")


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which PIL would cut off at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    _require_known_range(image)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image


def read_labels(path: Path) -> np.ndarray:
    """Reads a mask (h, w) of class indices, a grey image or one with a palette.

    Raises:
        ValueError: that names the file, if it is damaged or holds colors.
    """
    try:
        with Image.open(path) as stored:
            labels = np.array(stored)
    except Exception as error:  # noqa: BLE001  (as above)
        raise ValueError(f"expected a mask, got the unreadable {path}: {error}") from None
    if labels.ndim != 2:
        raise ValueError(f"expected a mask of class indices, grey or with a palette, got one of colors: {path}")
    return labels.astype(np.int64)


def with_palette(labels: np.ndarray) -> Image.Image:
    """An image of class indices (h, w) below 256, in colors that tell them apart: 0 is black, 255 white."""
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(_palette())
    return image


def _palette() -> bytes:
    """256 colors, each bit of an index in the high bits of another channel."""
    index = np.arange(256)
    bits: Iterable[tuple[int, int, int]] = [
        (0, 0, 7),
        (1, 1, 7),
        (2, 2, 7),
        (3, 0, 6),
        (4, 1, 6),
        (5, 2, 6),
        (6, 0, 5),
        (7, 1, 5),
    ]
    colors = np.zeros((256, 3), np.uint8)
    for bit, channel, place in bits:
        colors[:, channel] |= (((index >> bit) & 1) << place).astype(np.uint8)
    colors[255] = 255
    return colors.tobytes()


def unreadable(paths: Iterable[Path]) -> dict[Path, str]:
    """Files that are damaged or no images, with what reading each said; all of them are read, with several threads."""

    def problem(path: Path) -> str | None:
        try:
            with Image.open(path) as stored:
                stored.draft("RGB", (64, 64))  # a JPEG is read whole, but decoded at low resolution
                stored.load()
                _require_known_range(stored)
        except Exception as error:  # noqa: BLE001  (of many kinds, by the format and the damage)
            return str(error) or type(error).__name__
        return None

    paths = list(paths)
    with ThreadPoolExecutor() as threads:
        return {path: reason for path, reason in zip(paths, threads.map(problem, paths), strict=True) if reason}


def whole_files(paths: Iterable[Path], skip_broken: bool) -> list[Path]:
    """Those of the files that can be read, with a warning that names the others.

    Raises:
        ValueError: that names all others, unless they may be skipped.
    """
    paths = list(paths)
    return left_out(paths, unreadable(paths), skip_broken, "images")


def left_out(paths: list[Path], broken: Mapping[Path, str], skip_broken: bool, kind: str) -> list[Path]:
    """The files but those that are broken, with the reasons; see `whole_files`."""
    named = "".join(f"\n  {path}: {reason}" for path, reason in broken.items())
    if broken and not skip_broken:
        raise ValueError(
            f"expected {kind}, got {len(broken)} of {len(paths)} files that cannot be read; repair or remove them, or leave them out "
            f"with skip_broken=true (data.skip_broken=true for training):{named}"
        )
    if broken:
        warnings.warn(f"left out {len(broken)} of {len(paths)} files, which cannot be read:{named}", stacklevel=3)
    return [path for path in paths if path not in broken]
