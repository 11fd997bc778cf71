"""Draws attention and a field on a rotating digit: python scripts/plot_attention.py checkpoint=rotmnist

Writes attention.png, with eight angles, and attention.gif, with a whole turn.

Options:
    checkpoint: of a steerable transformer on SO(2), or the folder or name of published weights.
    image: index of the upright test digit.
    block: index of the block.
    head: index of the head.
    field: index of the vector field.
    folder: of the figures.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import MISSING

from escnn_attn import SteerableTransformer
from escnn_attn.analysis import attention_map
from escnn_attn.analysis.plots import draw_attention, save_figure
from escnn_attn.data import Digits, rotate_images, to_input
from escnn_attn.files import write_atomically
from escnn_attn.training import brief_errors, load_module, parse_options


@dataclass
class Options:
    checkpoint: str = MISSING
    image: int = 3
    block: int = -1
    head: int = 0
    field: int = 0
    folder: Path = Path("docs/images")


@brief_errors
def main() -> None:
    options = parse_options(Options, __doc__)
    trained = Path(options.checkpoint).is_file()
    network = load_module(options.checkpoint).model if trained else SteerableTransformer.from_pretrained(options.checkpoint)
    if not isinstance(network, SteerableTransformer):
        raise TypeError(f"expected a SteerableTransformer, got a {type(network).__name__}")
    angles = np.arange(0, 360, 5)
    upright = Digits().arrays()["upright"][0][options.image]
    inputs = to_input(rotate_images(np.repeat(upright[None], len(angles), 0), angles))
    found = attention_map(network, inputs, options.block)

    def draw(axes: Axes, index: int) -> list[Artist]:
        axes.clear()
        parts = inputs[index, 0], found.positions, found.weights[index, options.head], found.fields[index, :, options.field]
        draw_attention(axes, *(part.numpy() for part in parts))
        axes.set_title(f"{angles[index]}°")
        return []

    figure = Figure(figsize=(9, 5), layout="constrained")
    for axes, index in zip(figure.subplots(2, 4).flat, range(0, len(angles), len(angles) // 8), strict=True):
        draw(axes, index)
    save_figure(figure, options.folder / "attention.png")
    figure = FigureCanvasAgg(Figure(figsize=(3, 3.2), layout="constrained")).figure
    axes = figure.subplots()
    animation = FuncAnimation(figure, lambda index: draw(axes, index), frames=len(angles))
    write_atomically(options.folder / "attention.gif", lambda temporary: animation.save(temporary, PillowWriter(fps=12)))
