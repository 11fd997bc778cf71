"""Prints the relative equivariance error of attention for each tolerance asked, and of whole networks."""

from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from escnn_attn import SteerableTransformer, steerable_block
from escnn_attn.analysis.equivariance import attention_errors
from escnn_attn.testing import equivariance_error

LIMITS, DISTANCES = [1, 2, 3, 4], [2.0, 5.0, 10.0, 20.0]


def main() -> None:
    console = Console(width=100)
    errors = list(attention_errors([1e-3, 1e-6, 1e-9], LIMITS, DISTANCES))
    table = Table(
        "group", "tolerance asked", "largest error", "times the tolerance", title="Attention, continuous elements, float64"
    )
    for group, tolerance in dict.fromkeys(row[:2] for row in errors):
        worst = max(row[-1] for row in errors if row[:2] == (group, tolerance))
        table.add_row(group, f"{tolerance:g}", f"{worst:.1e}", f"{worst / tolerance:.2f}")
    console.print(table)
    print(f"largest of band limits {LIMITS}, distances up to {DISTANCES} with wavelengths from 6, 8 elements each")
    table = Table(
        "group", "elements", "largest error", title="Network, 29×29, random weights, float32, quarter turns and flips"
    )
    for group in ("SO2", "O2", "C8", "D4"):
        torch.manual_seed(0)
        network = SteerableTransformer(group, channels=8, max_frequency=3, block=partial(steerable_block, num_heads=2))
        errors = equivariance_error(network, dtype=torch.float32, size=29)
        table.add_row(group, str(len(errors)), f"{max(error for _, error in errors):.1e}")
    console.print(table)


if __name__ == "__main__":
    main()
