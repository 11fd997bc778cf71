"""Compares stems of networks on images of 224 × 224: python benchmarks/images.py [output=results.json]

Six blocks for SO(2) behind the stem for large images, a plain vision transformer of the same width (patches of 16), and stems alone. Times are
medians of steps forward and backward, in turn in one process, as ratios to the plain transformer. Beside them, how much the pooled invariants of
the network, and the invariants of the stem, change when a smooth image turns by 30°, in percent: for the stem of digits on 29 × 29 too.

Options:
    threads: number of threads.
    rounds: number of timings of each system.
    batch: images in a step.
    output: JSON file for the results and the machine.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # the parent of the package benchmarks, for use as a script

from escnn_attn import SteerableTransformer, antialiased_stem, convolution_stem, steerable_block
from escnn_attn.analysis.equivariance import error_by_angle
from escnn_attn.functional import invariants, token_mean
from escnn_attn.training import keep_freed_memory, parse_options

from benchmarks.backbones import NUM_CLASSES, PlainTransformer
from benchmarks.measure import middle_and_spread, ratios, seconds_in_turn, store

STEMS = {
    "stem": antialiased_stem,
    "stem of digits, twice as deep": partial(
        convolution_stem, kernel_sizes=(9, 5, 7, 5), strides=(2, 2, 2, 2), hidden_channels=16
    ),
}
#: sides of images, and widths of Gaussians on them, both in pixels
IMAGES = {"stem": (224, (15.0, 8.0)), "stem of digits": (29, (2.0, 1.05))}


@dataclass
class Options:
    threads: int = 2
    rounds: int = 9
    batch: int = 4
    output: Path | None = None


def network_of(stem: Callable, channels: int = 56, depth: int = 6) -> SteerableTransformer:
    """Blocks for SO(2), by default of width 392."""
    torch.manual_seed(0)
    block = partial(steerable_block, num_heads=8)
    return SteerableTransformer(
        "SO2", in_type=3, num_classes=NUM_CLASSES, channels=channels, max_frequency=3, depth=depth, stem=stem, block=block
    )


def invariants_of_stem(network: SteerableTransformer, images: Tensor) -> Tensor:
    """Invariants (b, c) of what the stem makes of images, averaged over the tokens."""
    tokens = network.embed(images)
    values = invariants(tokens.features, network.blocks.in_layout.irreps.trivial)
    return token_mean(values, tokens.domain.mask, None)


def steps(batch: int) -> dict[str, Callable[[], None]]:
    """A step forward and backward of each system, on random images."""
    x, plain = torch.randn(batch, 3, 224, 224), PlainTransformer(392, 6, 8)
    network = network_of(antialiased_stem)
    found = {"plain transformer": lambda: plain(x).sum().backward(), "network": lambda: network(x).sum().backward()}
    return found | {name: partial(_stem_step, network_of(stem, depth=1), x) for name, stem in STEMS.items()}


def _stem_step(network: SteerableTransformer, x: Tensor) -> None:
    torch.stack([f.sum() for f in network.embed(x).features]).sum().backward()


def changes(network: SteerableTransformer, side: int, width: float) -> dict[str, float]:
    """The change of a network and of its stem under rotation by 30°, in percent, of images with three equal channels."""
    readouts = {"network": network.eval().invariants, "stem": partial(invariants_of_stem, network)}
    return {
        name: 100 * error_by_angle(lambda x, read=read: read(x.expand(-1, 3, -1, -1)), [30.0], side, width)[0]
        for name, read in readouts.items()
    }


def main() -> None:
    options = parse_options(Options, __doc__)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    seconds = seconds_in_turn(steps(options.batch), options.rounds)
    rows: dict[str, dict[str, float]] = {}
    print(f"{'224 × 224, batch ' + str(options.batch):34}{'seconds':>8}{'ratio':>8}{'spread':>8}")
    for name, times in seconds.items():
        ratio, spread = ratios(times, seconds["plain transformer"])
        rows[name] = {"seconds": middle_and_spread(times)[0], "ratio": ratio, "spread": spread}
        print(f"{name:34}{rows[name]['seconds']:8.3f}{ratio:8.2f}{spread:8.2f}")
    share, spread = ratios(seconds["stem"], seconds["network"])
    print(f"share of the stem in a step of the network: {share:.2f} ± {spread:.2f}")
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for name, stem in (("stem", antialiased_stem), ("stem of digits", convolution_stem)):
        side, widths = IMAGES[name]
        network = network_of(stem)
        errors[name] = {str(width): changes(network, side, width) for width in widths}
        for width, found in errors[name].items():
            line = ", ".join(f"{part} {change:.2f} %" for part, change in found.items())
            print(f"change under 30°, {name}, {side} × {side}, Gaussians of {width} pixels: {line}")
    store(options.output, options, times=rows, share={"median": share, "spread": spread}, changes=errors)


if __name__ == "__main__":
    main()
