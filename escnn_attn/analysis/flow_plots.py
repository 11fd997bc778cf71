"""Figures of flows and of their predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from escnn_attn.analysis.plots import COLORS, save_figure
from escnn_attn.data.turbulence import energy_spectrum, vorticity_of
from escnn_attn.files import write_atomically


def plot_energy_spectra(
    truth: np.ndarray, predictions: dict[str, np.ndarray], path: Path, steps: Sequence[int] = (1, 10)
) -> None:
    """Plots energy by wavenumber, averaged over flows, of the truth and of predictions, one panel for each number of intervals.

    Args:
        truth: velocities (flows, frames, 2, n, n).
        predictions: of the same shape, by name of the model.
        path: of the file.
        steps: numbers of intervals; those beyond the last frame are left out.
    """
    shown = [step for step in steps if step < truth.shape[1]]
    figure = Figure(figsize=(4.2 * len(shown), 3.8), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, step in zip(panels, shown, strict=True):
        curves = {"simulation": truth, **predictions}
        for (name, velocities), color in zip(curves.items(), ("black", *COLORS), strict=False):
            spectrum = energy_spectrum(velocities[:, step]).mean(axis=0)
            axes.loglog(
                range(1, len(spectrum)), spectrum[1:], label=name, color=color, linewidth=2.5 if name == "simulation" else 1.3
            )
        resolved = energy_spectrum(truth[:, step]).mean(axis=0)[1 : truth.shape[-1] // 3]  # the simulation has no energy beyond
        axes.set(
            xlabel="wavenumber",
            title=f"after {step} interval{'s' * (step > 1)}",
            ylim=(resolved.min() / 10, 3 * resolved.max()),
        )
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("energy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)


def plot_rollout_errors(errors: dict[str, Sequence[float]], path: Path) -> None:
    """Plots the relative error after 1, 2, … intervals, one curve per model (see `flow_errors`)."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=COLORS)
    for name, values in errors.items():
        axes.plot(range(1, len(values) + 1), values, marker=".", label=name)
    axes.set(xlabel="intervals", ylabel="relative error of the velocity", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)


def animate_vorticity(flows: dict[str, np.ndarray], path: Path, fps: int = 3) -> None:
    """Draws the vorticity of one flow as an animation, panels beside one another in the same colors.

    Args:
        flows: velocities (frames, 2, n, n) by title; the colors are those of the first.
        path: of the GIF file.
        fps: frames per second.
    """
    fields = {title: vorticity_of(velocities.astype(np.float64)) for title, velocities in flows.items()}
    first = next(iter(fields.values()))
    figure = FigureCanvasAgg(Figure(figsize=(2.6 * len(fields), 2.9), layout="constrained")).figure
    pictures = []
    for axes, (title, frames) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True):
        limit = float(np.abs(first[0]).max())
        pictures.append(axes.imshow(frames[0], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="bicubic"))
        axes.set(title=title, xticks=[], yticks=[])

    def draw(index: int) -> list[Artist]:
        for picture, frames in zip(pictures, fields.values(), strict=True):
            picture.set_data(frames[index])
        return list(pictures)

    path.parent.mkdir(parents=True, exist_ok=True)
    animation = FuncAnimation(figure, draw, frames=len(first))
    write_atomically(path, lambda temporary: animation.save(temporary, PillowWriter(fps=fps)))
