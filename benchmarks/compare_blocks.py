"""Our transformer block beside others: python benchmarks/blocks_table.py [--compile] [--tokens 196 --batch 4 --width 448] [--growth] …

Times are ratios of two systems, timed in turn in one run, with half the distance of the quartiles; FLOPs are of a forward and
a backward pass, counted with attention that is not fused; memory and set-up are of a process for each system.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.blocks import COMPILED, PAIRS, Setting
from benchmarks.tables import costs, growth, machine, ratios
from escnn_attn.data._files import write_aside

SETTINGS = (Setting(), Setting(side=28, batch=1), Setting(side=8, batch=16, width=224))


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    report: dict = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    if options.growth:
        report["growth"] = growth(options.growth, options.threads)
    else:
        settings = [replace(s, group=options.group, dtype=options.dtype) for s in SETTINGS]
        if options.tokens:
            side = math.isqrt(options.tokens)
            settings = [replace(settings[0], side=side, batch=options.batch, width=options.width)]
        report["ratios"] = ratios(settings, COMPILED if options.compile else PAIRS, options.rounds)
        if not options.compile:
            report["costs"] = costs(settings[0], options.threads)
    if options.output:
        write_aside(options.output, lambda aside: aside.write_text(json.dumps(report, indent=1)))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--group", default="SO2", help="SO2 or O2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", action="store_true", help="our systems through torch.compile")
    parser.add_argument("--tokens", type=int, help="one setting instead of three: a square number")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--growth", type=Path, help="measure time and memory against tokens instead, and draw them here")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures and the machine")
    return parser.parse_args()


if __name__ == "__main__":
    main()
