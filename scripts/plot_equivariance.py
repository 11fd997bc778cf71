"""Plots error against rotation angle on a smooth image: our network beside escnn's convolutions and a plain transformer."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from escnn_attn import SteerableTransformer, steerable_block
from escnn_attn.analysis.equivariance import ConvolutionalNetwork, error_by_angle
from escnn_attn.analysis.plots import save

PICTURE = Path("docs/images/equivariance.png")
ANGLES = [float(a) for a in range(0, 181, 5)]


def networks() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Networks with random weights, in eval mode, up to the pooled invariants that a classifier would read."""
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
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, network in networks().items():
        errors = error_by_angle(network, ANGLES)
        axes.semilogy(ANGLES[1:], errors[1:], marker=".", label=name)
        print(f"{name}: largest error {max(errors):.1e}, at 90° {errors[ANGLES.index(90.0)]:.1e}")
    axes.set(xlabel="rotation of the image (degrees)", ylabel="relative change of the output", xticks=range(0, 181, 45))
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, PICTURE)
    print(f"saved {PICTURE}")


if __name__ == "__main__":
    main()
