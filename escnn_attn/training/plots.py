"""Pictures of results."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from escnn_attn.training.mnist import write_aside


def plot_accuracy_by_angle(results: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against the angle that upright test images are rotated by, one curve for each result."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for result in results:
        angles, accuracies = list(result["angles"]), list(result["accuracy_by_angle"])
        axes.plot([*angles, angles[0] + 360], [100 * a for a in [*accuracies, accuracies[0]]], marker=".", label=result["name"])
    axes.set(xlabel="rotation of the test images (degrees)", ylabel="accuracy (%)", xticks=range(0, 361, 45), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    """Saves a figure whole or not at all, and closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, lambda aside: figure.savefig(aside, dpi=150))
    plt.close(figure)
