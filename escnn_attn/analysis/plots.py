"""Figures of results, drawn without state of pyplot."""

import math
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from cycler import Cycler, cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from escnn_attn.files import write_atomically

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
CHARGES = {1.0: ("tab:red", "positive"), -1.0: ("tab:blue", "negative")}
PREDICTIONS = [("o", "black"), ("X", "tab:orange"), ("D", "tab:green"), ("s", "tab:purple")]


def _styles(count: int) -> Cycler[str, str]:
    """Colors that also color-blind readers tell apart (Okabe & Ito, 2008), each with a line style of its own from the eighth on."""
    lines = ["-", "--", ":", "-."]
    return cycler(color=[COLORS[i % len(COLORS)] for i in range(count)]) + cycler(
        linestyle=[lines[i // len(COLORS) % len(lines)] for i in range(count)]
    )


def plot_accuracy_by_angle(results: list[dict[str, Any]], path: Path) -> None:
    """Plots accuracy against the rotation angle of upright test images, one curve per result."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    ranked = sorted(results, key=lambda result: -sum(result["accuracy_by_angle"]))  # the legend in the order of the curves
    axes.set_prop_cycle(_styles(len(ranked)))
    for result in ranked:
        angles, accuracies = list(result["angles"]), list(result["accuracy_by_angle"])
        axes.plot([*angles, angles[0] + 360], [100 * a for a in [*accuracies, accuracies[0]]], marker=".", label=result["name"])
    lowest = min(min(result["accuracy_by_angle"]) for result in results)
    limits = (10 * math.floor(10 * lowest), 100)
    axes.set(xlabel="rotation of the test images (degrees)", ylabel="accuracy (%)", xticks=range(0, 361, 45), ylim=limits)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)


def plot_sample_efficiency(rows: list[dict[str, Any]], path: Path) -> None:
    """Plots test accuracy against the number of training images, one curve per model with several rows of `compare_runs`."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    curves = {
        name: sorted((row["samples"], 100 * row["test"]) for row in rows if row["name"] == name)
        for name in dict.fromkeys(row["name"] for row in rows)
    }
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    ranked = sorted(curves.items(), key=lambda curve: -curve[1][-1][1])  # the legend in the order of the curves at their ends
    axes.set_prop_cycle(_styles(len(ranked)))
    for name, points in ranked:
        axes.semilogx(*zip(*points, strict=True), marker=".", label=name)
    axes.set(xlabel="training images", ylabel="test accuracy (%)")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)


def draw_attention(axes: Axes, image: np.ndarray, positions: np.ndarray, weights: np.ndarray, vectors: np.ndarray) -> None:
    """Draws an image (h, w), attention weights (t,) as discs at positions (t, 2), and vectors (t, 2) as arrows."""
    height, width = image.shape
    extent = (-width / 2, width / 2, -height / 2, height / 2)
    axes.imshow(image, cmap="Greys", extent=extent, alpha=0.5)
    axes.scatter(*positions.T, s=400 * weights / weights.max(), color="tab:orange", alpha=0.7, linewidths=0)
    axes.quiver(*positions.T, *vectors.T, color="tab:blue", angles="xy", width=0.008)
    limits = {"xlim": (-0.6 * width, 0.6 * width), "ylim": (-0.6 * height, 0.6 * height)}  # arrows at the edges are whole
    axes.set(xticks=[], yticks=[], **limits)


def plot_trajectories(paths: np.ndarray, charges: np.ndarray, predictions: dict[str, np.ndarray], path: Path) -> None:
    """Plots trajectories of charged particles and predicted final positions, one panel per cloud.

    Args:
        paths: (num_steps + 1, clouds, particles, 2).
        charges: (clouds, particles), 1 or −1.
        predictions: final positions (clouds, particles, 2) by name of the model.
        path: of the file.
    """
    figure = Figure(figsize=(3.2 * len(charges), 3.7), layout="constrained")
    panels = figure.subplots(1, len(charges), squeeze=False)
    for cloud, axes in enumerate(panels[0]):
        for particle, charge in enumerate(charges[cloud]):
            x, y = paths[:, cloud, particle].T
            axes.plot(x, y, color=CHARGES[charge][0], linewidth=1.5)
            axes.plot(x[0], y[0], marker=".", markersize=9, color=CHARGES[charge][0])
        for (marker, color), ends in zip(cycle(PREDICTIONS), predictions.values(), strict=False):
            axes.scatter(*ends[cloud].T, marker=marker, s=42, facecolors="none", edgecolors=color, linewidths=1.3, zorder=3)
            axes.plot(*np.stack([paths[-1, cloud], ends[cloud]], axis=1).T, color=color, linewidth=1, linestyle=":")
        axes.margins(0.08)
        axes.set(aspect="equal", adjustable="datalim", xticks=[], yticks=[])
    lines = [
        Line2D([], [], color=color, marker=".", label=f"{name} charge, true path from its start")
        for color, name in CHARGES.values()
    ]
    marks = [
        Line2D([], [], linestyle=":", color=color, marker=marker, markerfacecolor="none", label=f"{name}: predicted end")
        for (marker, color), name in zip(cycle(PREDICTIONS), predictions, strict=False)
    ]
    figure.legend(handles=[*lines, *marks], loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)


def plot_growth(costs: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Plots seconds and bytes against the number of tokens, one curve per system."""
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, quantity, unit, label in zip(axes, ("seconds", "bytes"), (1, 2**20), ("seconds", "MB"), strict=True):
        for system, rows in costs.items():
            axis.loglog(list(rows), [row[quantity] / unit for row in rows.values()], marker="o", label=system)
        axis.set(xlabel="tokens", ylabel=f"{label}, forward and backward")
        axis.grid(alpha=0.3, which="both")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(costs))
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Saves a figure, and creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150))
