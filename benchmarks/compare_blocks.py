"""Compares blocks: python benchmarks/compare_blocks.py [device=cuda] [dtype=bfloat16] [compile=true] [switches=true]
    [tokens=196 batch=4 width=448] [growth=growth.png]

Times are ratios of two systems, timed in turn in one process, with half the distance of the quartiles, and the implementations of
attention that torch chose for each. Steerable blocks have their defaults, torch's layer a hidden layer of four times its width. FLOPs are of a
forward and a backward pass with unfused attention. Memory and construction are measured in a process per system.

Options:
    threads: number of threads.
    rounds: number of timings of each system.
    group: SO2 or O2.
    dtype: float32, bfloat16, float16 or float64, of parameters and inputs.
    device: cpu or cuda.
    compile: compile the first system of each pair with torch.compile.
    switches: compare steerable blocks with one choice that differs from the default to the default.
    tokens: a square number: one setting instead of four.
    batch: samples in the setting of `tokens`.
    width: channels per token in the setting of `tokens`.
    growth: measure time and memory against the number of tokens instead, and save their figure to this file.
    output: JSON file for the results and the machine.
"""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the parent of the package benchmarks, for use as a script

from escnn_attn.training import parse_options

from benchmarks.blocks import COMPILED, PAIRS, SWITCHES, Setting
from benchmarks.measure import require_device, store
from benchmarks.tables import costs, growth, ratios

SETTINGS = (Setting(), Setting(side=28, batch=1), Setting(side=56, batch=1), Setting(side=8, batch=16, width=224))
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass
class Options:
    threads: int = 2
    rounds: int = 7
    group: str = "SO2"
    dtype: str = "float32"
    device: str = "cpu"
    compile: bool = False
    switches: bool = False
    tokens: int | None = None
    batch: int = 4
    width: int = 448
    growth: Path | None = None
    output: Path | None = None

    def settings(self) -> list[Setting]:
        if self.dtype not in DTYPES:
            raise SystemExit(f"expected dtype= one of {', '.join(DTYPES)}, got dtype={self.dtype}")
        common = {"group": self.group, "dtype": self.dtype, "device": require_device(self.device)}
        settings = [replace(setting, **common) for setting in SETTINGS]
        if self.tokens is None:
            return settings
        return [replace(settings[0], side=math.isqrt(self.tokens), batch=self.batch, width=self.width)]


def main() -> None:
    options = parse_options(Options, __doc__)
    settings = options.settings()
    torch.set_num_threads(options.threads)
    results: dict = {}
    if options.growth:
        results["growth"] = growth(options.growth, options.threads, options.device)
    else:
        pairs = SWITCHES if options.switches else COMPILED if options.compile else PAIRS
        results["ratios"] = ratios(settings, pairs, options.rounds)
        if pairs is PAIRS:
            results["costs"] = costs(settings[0], options.threads)
    store(options.output, options, **results)


if __name__ == "__main__":
    main()
