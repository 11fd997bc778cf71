"""Ratios of our transformer block to others, timed in turn in one run: python scripts/benchmark.py [--threads 2] [--group O2] …"""

import argparse
import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import torch

from escnn_attn.benchmarks.blocks import SYSTEMS, Setting, compare
from escnn_attn.training.cache import write_aside

SETTINGS = (Setting(), Setting(side=28, batch=1), Setting(side=8, batch=16, width=224))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--group", default="SO2")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures and the machine")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in SYSTEMS:
        for setting in (replace(s, group=options.group) for s in SETTINGS):
            row = compare(name, setting, options.rounds)
            rows.append({"systems": name, "tokens": setting.side**2, "batch": setting.batch, "width": setting.width, **row})
            times = ", ".join(
                f"{what} {row[what]:.2f} ± {row[f'{what}, spread'] / 2:.2f}" for what in ("forward and backward", "forward")
            )
            print(
                f"{name}: {setting.side**2} tokens, batch {setting.batch}, width {setting.width}: {times}; "
                f"FLOPs {row['flops']:.2f}, parameters {row['parameters']:.2f}",
                flush=True,
            )
    if options.output:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
        report = {"machine": machine, "options": {k: str(v) for k, v in vars(options).items()}, "rows": rows}
        write_aside(options.output, lambda aside: aside.write_text(json.dumps(report, indent=1)))


if __name__ == "__main__":
    main()
