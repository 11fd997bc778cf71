"""A small synthetic data set of colored shapes, as image files with labels and masks."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from escnn_attn.arguments import require_integer
from escnn_attn.data.preparation import with_palette
from escnn_attn.files import write_atomically

#: pixels that are drawn for each pixel and axis
OVERSAMPLING = 4


def _circle(count: int, radius: float = 1.0, start: float = 90.0, turn: float = 360.0) -> np.ndarray:
    """Points (count, 2) on an arc, x to the right and y up."""
    angles = np.radians(start + turn * np.arange(count) / count)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> np.ndarray:
    outer, inner = _circle(5), _circle(5, 0.4, start=126)
    return np.stack([outer, inner], axis=1).reshape(-1, 2)


def _crescent() -> np.ndarray:
    """Between an arc of the unit circle and one through its ends, bent to the same side."""
    outer = _circle(41, start=60, turn=240 * 41 / 40)  # both ends included
    return np.concatenate([outer, (outer * [0.35, 1.0] + [0.325, 0.0])[::-1]])


#: corners of the shapes, upright, within the unit circle; the reflection of an L is an L for networks on O(2) and D_N
SHAPES: dict[str, np.ndarray] = {
    "L": np.array([(-0.6, 0.8), (-0.1, 0.8), (-0.1, -0.3), (0.6, -0.3), (0.6, -0.8), (-0.6, -0.8)]),
    "crescent": _crescent(),
    "square": _circle(4, start=45),
    "star": _star(),
    "triangle": _circle(3),
}


class Shapes(NamedTuple):
    """Pictures of shapes.

    Attributes:
        images: (n, side, side, 3), uint8.
        labels: (n,), indices into the sorted names of the shapes, of the first shape of each picture.
        masks: (n, side, side), uint8: 0 for the background, one more than the label for each shape.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def draw_shapes(count: int, *, side: int = 64, rotated: bool = False, per_image: int = 1, seed: int = 0) -> Shapes:
    """Draws pictures of a triangle, square, star, L or crescent of random color, size and position on a random background.

    Shapes lie within the disc of the image, and their edges are antialiased. The same seed gives the same pictures, upright or rotated.

    Args:
        count: number of pictures; labels take turns.
        side: of the pictures, in pixels.
        rotated: whether each picture is turned as a whole, about its center, by a random angle.
        per_image: number of shapes on a picture; later ones may cover earlier ones.
        seed: of the pictures.

    Examples:
        >>> images, labels, masks = draw_shapes(5)
        >>> images.shape, labels.tolist()
        ((5, 64, 64, 3), [0, 1, 2, 3, 4])
    """
    for name, value in {"count": count, "side": side, "per_image": per_image}.items():
        require_integer(name, value)
    rng = np.random.default_rng(require_integer("seed", seed, 0))
    labels = np.arange(count) % len(SHAPES)
    pictures = [_picture(rng, int(label), side, rotated, per_image) for label in labels]
    images, masks = (np.stack(parts) for parts in zip(*pictures, strict=True))
    return Shapes(images, labels, masks)


def _picture(rng: np.random.Generator, label: int, side: int, rotated: bool, per_image: int) -> tuple[np.ndarray, np.ndarray]:
    image = np.broadcast_to(rng.uniform(0, 90, 3), (side, side, 3))
    mask = np.zeros((side, side), np.uint8)
    spread, turn = 0.1 if per_image == 1 else 0.22, rng.uniform(0, 360) * rotated
    for chosen in [label, *rng.integers(len(SHAPES), size=per_image - 1)]:
        radius, center = rng.uniform(0.18, 0.26) * (1.2 if per_image == 1 else 0.8), rng.uniform(-spread, spread, 2)
        color = rng.uniform(140, 255, 3)
        cover = _coverage(list(SHAPES.values())[chosen], side, radius, center, turn)
        image = image + cover[..., None] * (color - image)
        mask[cover > 0.5] = chosen + 1
    noise = rng.normal(0, 6, (side, side, 3))
    return (image + noise).clip(0, 255).astype(np.uint8), mask


def _coverage(corners: np.ndarray, side: int, radius: float, center: np.ndarray, turn: float) -> np.ndarray:
    """The share of each pixel (side, side) that a shape covers, of a picture turned by degrees; lengths in units of the side, from the center, y up."""
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    placed = (radius * corners + center) @ np.array([[cos, sin], [-sin, cos]])
    fine = Image.new("L", (OVERSAMPLING * side, OVERSAMPLING * side))
    pixels = (placed * [1, -1] + 0.5) * OVERSAMPLING * side - 0.5
    ImageDraw.Draw(fine).polygon([(float(x), float(y)) for x, y in pixels], fill=255)
    return np.asarray(fine.reduce(OVERSAMPLING)) / 255


def write_shapes(
    folder: str | Path,
    *,
    train: int = 500,
    validation: int = 0,
    test: int = 200,
    side: int = 64,
    per_image: int = 1,
    seed: int = 0,
) -> None:
    """Writes pictures of `draw_shapes` as PNG files, upright for training and validation, rotated for test.

    One shape on a picture gives folders of classes for `ImageFolder`, `folder/<set>/<class>/<number>.png`; several give images and
    masks for `SegmentationFolder`, `folder/<set>/images/<number>.png` and `folder/<set>/masks/<number>.png`.

    Args:
        folder: created if it does not exist; files of the same names are replaced.
        train: number of pictures for training.
        validation: for validation; 0 for no folder, so that a share of the training pictures is taken.
        test: for test.
        side: of the pictures, in pixels.
        per_image: number of shapes on a picture.
        seed: of the pictures.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> write_shapes(folder, train=5, test=5, side=16)
        >>> sorted(path.name for path in (Path(folder) / "test").iterdir())
        ['L', 'crescent', 'square', 'star', 'triangle']
    """
    for index, (name, count) in enumerate({"train": train, "validation": validation, "test": test}.items()):
        if require_integer(name, count, 0):
            drawn = draw_shapes(
                count,
                side=side,
                rotated=name == "test",
                per_image=per_image,
                seed=1000 * require_integer("seed", seed, 0) + index,
            )
            _write(Path(folder) / name, drawn, masks=per_image > 1)


def _write(folder: Path, drawn: Shapes, masks: bool) -> None:
    names = list(SHAPES)
    for number, (image, label, mask) in enumerate(zip(*drawn, strict=True)):
        _save(Image.fromarray(image), folder / ("images" if masks else names[label]) / f"{number:05}.png")
        if masks:
            _save(with_palette(mask), folder / "masks" / f"{number:05}.png")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, image.save)
