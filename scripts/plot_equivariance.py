"""Plots the error of a steerable transformer, escnn's convolutions and a plain transformer: python scripts/plot_equivariance.py

Options:
    picture: file to write.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure

from escnn_attn import SteerableTransformer, steerable_block
from escnn_attn.analysis.equivariance import ConvolutionalNetwork, error_by_angle
from escnn_attn.analysis.plots import save_figure
from escnn_attn.training import parse_options

ANGLES = [float(a) for a in range(0, 181, 5)]


@dataclass
class Options:
    picture: Path = Path("docs/images/equivariance.png")


def networks() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Networks with random weights, in eval mode, up to the pooled invariants before the classifier."""
    torch.manual_seed(0)
    steerable = SteerableTransformer("SO2", channels=8, block=partial(steerable_block, num_heads=1)).eval()
    plain = SteerableTransformer("trivial", channels=56).eval()
    convolutions = ConvolutionalNetwork("SO2", channels=8, max_frequency=3, depth=3).eval()
    return {
        "steerable transformer": steerable.invariants,
        "escnn convolutions": convolutions,
        "plain transformer": plain.invariants,
    }


def main() -> None:
    options, figure = parse_options(Options, __doc__), Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, network in networks().items():
        errors = error_by_angle(network, ANGLES)
        axes.semilogy(ANGLES[1:], errors[1:], marker=".", label=name)
        print(f"{name}: largest error {max(errors):.1e}, at 90° {errors[ANGLES.index(90.0)]:.1e}")
    axes.set(xlabel="rotation of the image (degrees)", ylabel="relative change of the output", xticks=range(0, 181, 45))
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, options.picture)
    print(f"saved {options.picture}")


if __name__ == "__main__":
    main()
