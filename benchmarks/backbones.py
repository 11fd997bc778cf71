"""Compares training steps on images of 224 × 224: python benchmarks/backbones.py [output=results.json]

A backbone, a plain vision transformer (patches of 16) and a network of escnn's convolutions, of about equal parameters. Times are medians of
steps forward and backward, in turn in one process, as ratios to the plain transformer; memory is measured in a process of its own
each, for the backbone at three image sizes.

Options:
    threads: number of threads.
    rounds: number of timings of each system.
    batch: images in a step.
    output: JSON file for the results and the machine.
"""

import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the parent of the package benchmarks, for use as a script

from escnn_attn import InvariantPooling, SteerableBackbone, field_type, fourier_type, planar_gspace
from escnn_attn.training import keep_freed_memory, parse_options

import escnn.nn
import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn

from benchmarks.measure import in_fresh_process, peak_bytes, ratios, seconds_in_turn, store

NUM_CLASSES = 10


@dataclass
class Options:
    threads: int = 2
    rounds: int = 5
    batch: int = 2
    output: Path | None = None


class PlainTransformer(nn.Module):
    """A vision transformer with patches of 16 × 16 and torch's encoder layers, of 4.9 million parameters."""

    def __init__(self, width: int = 256, depth: int = 6, heads: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 16, stride=16)
        self.position = nn.Parameter(torch.randn(1, 14**2, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True, norm_first=True, activation="gelu")
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.readout = nn.Linear(width, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).mT + self.position
        return self.readout(self.blocks(tokens).mean(1))


class Convolutions(nn.Module):
    """Residual convolutions of escnn, SO(2), on grids at strides of 4, 8, 16 and 32, of about 4.9 million parameters."""

    def __init__(self, channels: tuple[int, ...] = (36, 72, 144, 288), depths: tuple[int, ...] = (1, 1, 3, 1)) -> None:
        super().__init__()
        gspace = planar_gspace("SO2")
        self.in_type = field_type(gspace, scalars=3)
        types = [fourier_type(gspace, count, 2) for count in channels]
        layers: list[nn.Module] = [escnn.nn.R2Conv(self.in_type, types[0], 12, stride=4, padding=4)]
        for stage, depth in enumerate(depths):
            if stage:
                layers.append(escnn.nn.R2Conv(types[stage - 1], types[stage], 4, stride=2, padding=1))
            layers += [_Residual(types[stage], channels[stage]) for _ in range(depth)]
        self.layers, self.pool = nn.Sequential(*layers), InvariantPooling(types[-1])
        self.readout = nn.Linear(self.pool.out_type.size, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.pool(self.layers(GeometricTensor(x, self.in_type))).tensor)


class _Residual(nn.Module):
    def __init__(self, t: FieldType, channels: int) -> None:
        super().__init__()
        irreps = t.fibergroup.bl_irreps(2)  # pyright: ignore[reportAttributeAccessIssue]
        self.norm = escnn.nn.IIDBatchNorm2d(t)
        self.elu = escnn.nn.FourierELU(t.gspace, channels, irreps, type="regular", N=16)
        self.convolution = escnn.nn.R2Conv(t, t, 3, padding=1)

    def forward(self, x: GeometricTensor) -> GeometricTensor:
        return x + self.convolution(self.elu(self.norm(x)))


SYSTEMS: dict[str, Callable[[], nn.Module]] = {
    "plain transformer": PlainTransformer,
    "SteerableBackbone": lambda: SteerableBackbone("SO2", stages="small", num_classes=NUM_CLASSES),
    "the same, all tokens": lambda: SteerableBackbone("SO2", stages="small", num_classes=NUM_CLASSES, disc=False),
    "escnn convolutions": Convolutions,
}


def step_of(name: str, side: int, batch: int) -> tuple[nn.Module, Callable[[], None]]:
    """A system, and a step on random images."""
    torch.manual_seed(0)
    network = SYSTEMS[name]()
    x = torch.randn(batch, 3, side, side)
    return network, lambda: network(x).sum().backward()


def memory(name: str, side: int, batch: int, threads: int) -> float:
    """Additional peak memory of a step in MiB; in a process of its own, on Linux."""
    torch.set_num_threads(threads)
    _, step = step_of(name, side, batch)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what construction has freed
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, at what is in use
    before = peak_bytes()
    step()
    return (peak_bytes() - before) / 2**20


def main() -> None:
    options = parse_options(Options, __doc__)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    systems = {name: step_of(name, 224, options.batch) for name in SYSTEMS}
    seconds = seconds_in_turn({name: step for name, (_, step) in systems.items()}, options.rounds)
    rows = {}
    print(f"{'224 × 224, batch ' + str(options.batch):24}{'million parameters':>20}{'time':>8}{'spread':>8}{'MiB':>8}")
    for name, (network, _) in systems.items():
        middle, spread = ratios(seconds[name], seconds["plain transformer"])
        mebibytes = in_fresh_process("benchmarks.backbones:memory", name, 224, options.batch, options.threads)
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        rows[name] = {"parameters": millions, "time": middle, "spread": spread, "MiB": mebibytes}
        print(f"{name:24}{millions:20.2f}{middle:8.2f}{spread:8.2f}{mebibytes:8.0f}")
    sides = {
        side: in_fresh_process("benchmarks.backbones:memory", "SteerableBackbone", side, 1, options.threads)
        for side in (96, 224, 448)
    }
    powers = [math.log(sides[b] / sides[a]) / math.log((b / a) ** 2) for a, b in pairwise(sides)]
    print(f"SteerableBackbone, batch 1, MiB: {', '.join(f'{side}²: {m:.0f}' for side, m in sides.items())}")
    print(f"memory grows with the power of pixels {', '.join(f'{power:.2f}' for power in powers)}")
    store(options.output, options, **{"224": rows, "memory": sides, "powers": powers})


if __name__ == "__main__":
    main()
