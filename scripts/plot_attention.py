"""Draws attention and a field of a trained network on a digit that turns: python scripts/plot_attention.py checkpoint [--image 3].

`attention.png` shows eight angles, `attention.gif` the whole turn.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from escnn_attn.models.transformer import SteerableTransformer
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from escnn_attn.analysis.attention_maps import attention_map
from escnn_attn.analysis.plots import draw_attention, save
from escnn_attn.data._files import write_aside
from escnn_attn.data.digits import Digits, rotate_images, to_input
from escnn_attn.training.base import load_learner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="of a steerable transformer on SO(2), or the folder or name of published weights")
    parser.add_argument("--image", type=int, default=3, help="index among the upright test digits")
    parser.add_argument("--block", type=int, default=-1)
    parser.add_argument("--head", type=int, default=0)
    parser.add_argument("--field", type=int, default=0, help="which vector field")
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    trained = Path(options.checkpoint).is_file()
    network = load_learner(options.checkpoint).model if trained else SteerableTransformer.from_pretrained(options.checkpoint)
    angles = np.arange(0, 360, 5)
    images = rotate_images(np.repeat(Digits().arrays()["upright"][0][options.image][None], len(angles), 0), angles)
    inputs = to_input(images)
    if not isinstance(network, SteerableTransformer):
        parser.error(f"expected a SteerableTransformer, got a {type(network).__name__}")
    found = attention_map(network, inputs, options.block)

    def draw(axes: Axes, index: int) -> None:
        parts = inputs[index, 0], found.positions, found.weights[index, options.head], found.fields[index, :, options.field]
        draw_attention(axes, *(part.numpy() for part in parts))
        axes.set_title(f"{angles[index]}°")

    figure, panels = plt.subplots(2, 4, figsize=(9, 5), layout="constrained")
    for axes, index in zip(panels.flat, range(0, len(angles), len(angles) // 8), strict=True):
        draw(axes, index)
    save(figure, options.folder / "attention.png")
    figure, axes = plt.subplots(figsize=(3, 3.2), layout="constrained")

    def frame(index: int) -> list[Artist]:
        axes.clear()
        draw(axes, index)
        return []

    film = FuncAnimation(figure, frame, frames=len(angles))
    write_aside(options.folder / "attention.gif", lambda aside: film.save(aside, PillowWriter(fps=12)))


if __name__ == "__main__":
    main()
