"""Compares the time of an epoch of digits: python benchmarks/epochs.py [device=cuda] [compile=true] [output=epochs.json]

Networks of about 50,000 parameters, of `conf/systems.yaml`, for rotated MNIST: 10,000 images of 29 × 29 pixels in batches of 64. Steps of
all networks are timed in turn in one process on random images: forward, cross-entropy, backward, and AdamW. An epoch is the median of the steps times
their number, without loading of data, validation, and averages of weights. Validation accuracies are those of `docs/results`.

Options:
    threads: number of threads.
    rounds: number of timed steps of each network, after two for warm-up.
    device: cpu or cuda.
    compile: also time steerable attention compiled by torch.compile, which takes a minute first.
    record: also time steerable attention whose kernels are recorded and replayed (CudaGraph); for device=cuda.
    output: JSON file for the results and the machine.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the parent of the package benchmarks, for use as a script

from escnn_attn.training import keep_freed_memory, parse_options

import escnn.nn
import torch
import torch.nn.functional as F
from escnn.nn import EquivariantModule, FieldType
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import nn

from benchmarks.measure import elapsed, require_device, store

IMAGES, BATCH, SIDE = 10_000, 64, 29
RESULTS = Path(__file__).parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Recipe:
    """A network, and where its accuracy is recorded.

    Attributes:
        overrides: of `experiment=comparison`.
        results: pattern of its runs in `docs/results`, one for each seed.
        of_escnn: whether the stem has modules of escnn alone.
        compiled: whether torch.compile translates the blocks.
        recorded: whether the kernels of a step are recorded on a GPU.
    """

    overrides: tuple[str, ...]
    results: str
    of_escnn: bool = False
    compiled: bool = False
    recorded: bool = False

    def network(self) -> nn.Module:
        with initialize_config_module("escnn_attn.conf", version_base="1.3"):
            model = compose("train", overrides=["experiment=comparison", *self.overrides]).model
        if self.of_escnn:
            model.stem["_target_"], model.stem.norm["_target_"] = "benchmarks.epochs.escnn_stem", "escnn.nn.IIDBatchNorm2d"
        network = instantiate(model, _convert_="all")
        if self.compiled:
            network.compile()
        return network

    def accuracies(self) -> list[float]:
        """Recorded validation accuracies in percent."""
        return [
            100 * json.loads(path.read_text())["validation"] for path in sorted(RESULTS.glob(f"{self.results}/results.json"))
        ]


ATTENTION = Recipe(("system=steerable_so2_50k",), "comparison/steerable_so2_50k_10000_*")
COMPILED = Recipe(ATTENTION.overrides, ATTENTION.results, compiled=True)
RECORDED = Recipe(ATTENTION.overrides, ATTENTION.results, recorded=True)
SO2 = ("system=cnn_so2_50k",), "comparison/cnn_so2_50k_10000_*"
C8 = (
    ("system=gcnn_c4_50k", "systems.gcnn_c4_50k.group=C8", "systems.gcnn_c4_50k.channels=12"),
    "convolutions/gcnn_c8_50k_10000_*",
)
SYSTEMS = {
    "steerable attention, SO(2)": ATTENTION,
    "convolutions, SO(2)": Recipe(*SO2),
    "convolutions, C_8": Recipe(*C8),
    "convolutions of escnn's modules, SO(2)": Recipe(*SO2, of_escnn=True),
    "convolutions of escnn's modules, C_8": Recipe(*C8, of_escnn=True),
}


@dataclass
class Options:
    threads: int = 1
    rounds: int = 15
    device: str = "cpu"
    compile: bool = False
    record: bool = False
    output: Path | None = None


def escnn_stem(
    in_type: FieldType,
    out_type: FieldType,
    *,
    kernel_sizes: Sequence[int],
    strides: Sequence[int],
    hidden_channels: int,
    norm: Callable[[FieldType], EquivariantModule],
) -> escnn.nn.SequentialModule:
    """The convolutions of `convolution_stem` as a user of escnn writes them, with its ELU on 16 samples where ours is a GELU."""
    t = out_type.representations[0]
    hidden = FieldType(out_type.gspace, [t] * hidden_channels)
    types = [in_type, *[hidden] * (len(strides) - 1), out_type]
    layers: list[EquivariantModule] = []
    for index, (size, stride) in enumerate(zip(kernel_sizes, strides, strict=True)):
        if index:
            layers += [norm(hidden), _pointwise(hidden)]
        layers.append(escnn.nn.R2Conv(types[index], types[index + 1], size, stride=stride, padding=size // 2))
    return escnn.nn.SequentialModule(*layers)


def _pointwise(t: FieldType) -> EquivariantModule:
    if not t.fibergroup.continuous:
        return escnn.nn.ELU(t)
    irreps = list(dict.fromkeys(t.representations[0].irreps))
    return escnn.nn.FourierELU(t.gspace, len(t), irreps, type="regular", N=16)


def step_of(network: nn.Module, device: str = "cpu", batch: int = BATCH, recorded: bool = False) -> Callable[[], None]:
    """A training step on random images."""
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters())
    images, labels = torch.rand(batch, 1, SIDE, SIDE).to(device), (torch.arange(batch) % 10).to(device)
    if recorded:
        torch.cuda.make_graphed_callables(network, (images.clone(),), allow_unused_input=True)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def epochs(systems: dict[str, Recipe], rounds: int, device: str = "cpu", batch: int = BATCH) -> dict[str, dict[str, Any]]:
    """Seconds of an epoch of each system and their ratio to the first, medians with half the distance of their quartiles."""
    torch.manual_seed(0)
    networks = {name: recipe.network() for name, recipe in systems.items()}
    steps = {name: step_of(network, device, batch, systems[name].recorded) for name, network in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for index in range(rounds + 2):
        for name, step in steps.items():
            taken = elapsed(step, device) * math.ceil(IMAGES / batch)
            if index > 1:
                seconds[name].append(taken)
    first = next(iter(seconds.values()))
    rows: dict[str, dict[str, Any]] = {}
    for name, recipe in systems.items():
        ratios = [a / b for a, b in zip(seconds[name], first, strict=True)]
        row = {"parameters": sum(p.numel() for p in networks[name].parameters()), "validation": recipe.accuracies()}
        for key, values in (("seconds", seconds[name]), ("ratio", ratios)):
            low, row[key], high = statistics.quantiles(values, n=4)
            row[f"{key}, spread"] = (high - low) / 2
        rows[name] = row
    return rows


def main() -> None:
    options = parse_options(Options, __doc__)
    device = require_device(options.device)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    more = {"compiled": (options.compile, COMPILED), "recorded": (options.record, RECORDED)}
    systems = SYSTEMS | {f"{next(iter(SYSTEMS))}, {kind}": recipe for kind, (wanted, recipe) in more.items() if wanted}
    rows = epochs(systems, options.rounds, device)
    print(f"{'network':40}{'parameters':>12}{'validation %':>14}{'seconds an epoch':>20}{'ratio':>16}")
    for name, row in rows.items():
        accuracy = f"{statistics.mean(row['validation']):.2f} ({len(row['validation'])})" if row["validation"] else ""
        seconds = f"{row['seconds']:.1f} ± {row['seconds, spread']:.1f}"
        ratio = f"{row['ratio']:.2f} ± {row['ratio, spread']:.2f}"
        print(f"{name:40}{row['parameters']:12,}{accuracy:>14}{seconds:>20}{ratio:>16}")
    print("validation: means of the seeds whose number is in brackets, from docs/results")
    store(options.output, options, epochs=rows)


if __name__ == "__main__":
    main()
