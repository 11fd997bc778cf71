"""Tables of `benchmarks/compare_blocks.py`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from escnn_attn.analysis.plots import plot_growth

import numpy as np

from benchmarks.blocks import COMPILED, LARGE, ONCE, SYSTEMS, Setting
from benchmarks.measure import in_fresh_process
from benchmarks.ratios import compare, flops

Growth = dict[str, dict[int, dict[str, float]]]

TIMES = ("forward and backward", "forward", "forward in eval")
#: sides of the grids of tokens
SIDES = {
    "block": (32, 45, 64, 90, 128),
    "torch's encoder layer": (32, 45, 64, 90, 128),
    "block of pairwise kernels": (16, 23, 32, 45, 64),
}


#: from so many tokens on, only the pairs of `LARGE` are measured, in a third of the rounds
MANY_TOKENS = 2_000


def ratios(settings: list[Setting], pairs: dict, rounds: int) -> list[dict[str, Any]]:
    """Compares pairs of systems in each setting, and prints a line for each; of many tokens, only those of `LARGE`, in fewer rounds, and those of
    `ONCE` in the first setting alone."""
    rows = []
    for name, (ours, theirs) in pairs.items():
        for setting in settings:
            many = setting.side**2 >= MANY_TOKENS
            if (many and name not in LARGE) or (name in ONCE and setting is not settings[0]):
                continue
            row = compare(ours, theirs, setting, max(3, rounds // 3) if many else rounds)
            line = ", ".join(f"{time} {row[time]:.2f} ± {row[f'{time}, spread']:.2f}" for time in TIMES)
            if name not in COMPILED:
                row["flops"] = flops(ours, setting) / flops(theirs, setting)
                line += f"; FLOPs {row['flops']:.2f}"
            setting_name = f"{setting.side**2} tokens, batch {setting.batch}, width {setting.width}"
            attention = " / ".join(" and ".join(names) or "none" for names in row["attention"])
            print(f"{name}, {setting_name}: {line}, parameters {row['parameters']:.2f}; attention by {attention}", flush=True)
            rows.append({"systems": name, **asdict(setting), **row})
    return rows


def costs(setting: Setting, threads: int) -> dict[str, Any]:
    """Measures memory and construction of each system, and prints a line for each."""
    found: dict[str, Any] = {}
    for name in SYSTEMS:
        found[name] = in_fresh_process("benchmarks.ratios:cost", name, {**asdict(setting), "threads": threads})
        print(f"{name}: {found[name]['bytes'] / 2**20:.0f} MB, built in {found[name]['setup']:.3f} s", flush=True)
    found["12 blocks"] = in_fresh_process("benchmarks.ratios:construction", 12, setting.width)
    print(f"12 blocks of width {setting.width} built in {found['12 blocks']:.2f} s", flush=True)
    return found


def growth(picture: Path, threads: int, device: str = "cpu") -> Growth:
    """Measures seconds and bytes of a forward and a backward pass at batch 1 and width 56, prints exponents and plots them."""
    found: Growth = {}
    for system, sides in SIDES.items():
        found[system] = {}
        for side in sides:
            setting = Setting(width=56, num_heads=1, side=side, batch=1, device=device)
            row = in_fresh_process("benchmarks.ratios:cost", system, {**asdict(setting), "threads": threads})
            found[system][side**2] = row
            print(f"{system}, {side**2} tokens: {row['seconds']:.3f} s, {row['bytes'] / 2**20:.0f} MB", flush=True)
        for quantity in ("seconds", "bytes"):
            tokens, values = list(found[system]), [row[quantity] for row in found[system].values()]
            print(
                f"{system}: {quantity} grow with tokens to the power of {np.polyfit(np.log(tokens), np.log(values), 1)[0]:.2f}"
            )
    plot_growth(found, picture)
    return found
