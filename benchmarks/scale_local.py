"""Prints time and peak memory, forward and backward, of local, periodic and group attention: python benchmarks/scale_local.py"""

import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the parent of the package benchmarks, for use as a script

from benchmarks.measure import in_fresh_process

SIZES = {"grid": (32, 64, 128, 256), "points": (1024, 4096, 16384, 65536)}


def local_rows(domain: str, sizes: tuple[int, ...]) -> None:
    costs = [in_fresh_process("benchmarks.local:local_attention", domain, size) for size in sizes]
    growth = [None, *({key: b[key] / a[key] / 4 for key in a} for a, b in pairwise(costs))]
    print(f"{domain}: tokens of each row: 4 times those of the row above; growth relative to linear")
    for size, cost, grown in zip(sizes, costs, growth, strict=True):
        name = f"{size} × {size}" if domain == "grid" else f"{size}"
        line = f"{name:>10}  {cost['seconds']:7.3f} s  {cost['bytes'] / 2**20:7.0f} MB"
        print(line + (f"  time {grown['seconds']:.2f}  memory {grown['bytes']:.2f}" if grown else ""), flush=True)


def group_rows(group: str) -> None:
    for checkpointing in (False, True):
        cost = in_fresh_process("benchmarks.local:group_attention", group, 28, 8**0.5, checkpointing)
        suffix = "  with checkpointing" if checkpointing else ""
        print(f"{group:>10}  {cost['seconds']:7.3f} s  {cost['bytes'] / 2**20:7.0f} MB{suffix}", flush=True)


if __name__ == "__main__":
    for domain, sizes in SIZES.items():
        local_rows(domain, sizes)
    costs = in_fresh_process("benchmarks.local:periodic_attention", 64)
    print("discs of radius 3 on 64 × 64 pixels, with a border and periodic:")
    print(f"{costs['border']:7.3f} s  {costs['periodic']:7.3f} s  ratio {costs['ratio']:.2f}", flush=True)
    print("group self-attention, 28 × 28, discs that cover 5 × 5, 8 fields, batch 1")
    for group in ("C8", "D4"):
        group_rows(group)
