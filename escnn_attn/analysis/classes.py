"""Confusion matrices, tables by class, and pictures of predictions."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from escnn_attn.analysis.plots import save_figure
from escnn_attn.data.preparation import with_palette
from escnn_attn.files import write_atomically


def class_table(confusion: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class of a confusion matrix (true class, predicted class): precision, recall, IoU and support.

    Precision is the share of what was predicted as the class that is of it, recall the share of what is of the class that was
    predicted as it, IoU the intersection over the union of both, support the number of samples or pixels; None where it is 0/0.

    Examples:
        >>> class_table(np.array([[3, 1], [0, 4]]), ["cat", "dog"])[0]
        {'class': 'cat', 'precision': 1.0, 'recall': 0.75, 'iou': 0.75, 'support': 4}
    """
    hits, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return [
        {
            "class": name,
            "precision": _ratio(hits[i], predicted[i]),
            "recall": _ratio(hits[i], true[i]),
            "iou": _ratio(hits[i], true[i] + predicted[i] - hits[i]),
            "support": int(true[i]),
        }
        for i, name in enumerate(names)
    ]


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes rows as a CSV file."""

    def write(aside: Path) -> None:
        with aside.open("w", newline="") as file:
            table = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
            table.writeheader()
            table.writerows(rows)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def plot_confusion(confusion: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Plots a confusion matrix (true class, predicted class): shades by the share of the true class, and counts if they fit."""
    count = len(names)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = min(12.0, 2.0 + 0.45 * count)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes, label="share of the true class", shrink=0.8)
    step = -(-count // 40)  # names that can be read
    ticks = range(0, count, step)
    axes.set_xticks(ticks, [names[i] for i in ticks], rotation=90)
    axes.set_yticks(ticks, [names[i] for i in ticks])
    axes.set(xlabel="predicted class", ylabel="true class")
    if count <= 20:
        for row, column in np.argwhere(confusion):
            color = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, _short(int(confusion[row, column])), ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)


def _short(count: int) -> str:
    """A count in five characters or less."""
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.0f}M"


def plot_examples(images: np.ndarray, truth: np.ndarray, predicted: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Plots images (n, c, height, width) in [0, 1] with their true and predicted classes (n,), or masks (n, height, width) of them."""
    masks, columns = truth.ndim == 3, min(8, len(images))
    tiles = [_tile(image, labels) for image, *labels in zip(images, truth, predicted, strict=True)]
    (high, wide, _), gap = tiles[0].shape, -(-images.shape[3] // 16)
    head = 2 * gap if masks else 5 * gap
    rows = -(-len(tiles) // columns)
    mosaic = np.full((rows * (high + head), columns * (wide + gap), 3), 255, np.uint8)
    figure = Figure(figsize=(1.5 * columns, 1.5 * columns * mosaic.shape[0] / mosaic.shape[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for index, tile in enumerate(tiles):
        top, left = (high + head) * (index // columns) + head, (wide + gap) * (index % columns)
        mosaic[top : top + high, left : left + wide] = tile
        title, color = ("", "black") if masks else _title(names, int(truth[index]), int(predicted[index]))
        axes.text(left + wide / 2, top - gap / 2, title, fontsize=8, color=color, ha="center", va="bottom")
    axes.imshow(mosaic, aspect="auto")
    save_figure(figure, path)


def _title(names: Sequence[str], true: int, predicted: int) -> tuple[str, str]:
    """The predicted class, in red with the true one if it is another."""
    return (names[true], "black") if true == predicted else (f"{names[predicted]}\nnot {names[true]}", "tab:red")


def _tile(image: np.ndarray, labels: Sequence[np.ndarray]) -> np.ndarray:
    """An image (c, height, width) in colors, above its true and its predicted mask if there are masks."""
    colors = np.broadcast_to((255 * image.transpose(1, 2, 0)).clip(0, 255).astype(np.uint8), (*image.shape[1:], 3))
    below = [np.asarray(with_palette(mask).convert("RGB")) for mask in labels if mask.ndim == 2]
    return np.concatenate([colors, *below])
