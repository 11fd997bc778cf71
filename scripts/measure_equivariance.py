"""Prints relative equivariance errors of attention by tolerance, and of networks: python scripts/measure_equivariance.py"""

from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from escnn_attn import SteerableBackbone, SteerableTransformer, steerable_block
from escnn_attn.analysis.equivariance import attention_errors, feature_errors
from escnn_attn.testing import equivariance_error

LIMITS, DISTANCES = [1, 2, 3, 4], [2.0, 5.0, 10.0, 20.0]


def attention_table() -> Table:
    errors = list(attention_errors([1e-3, 1e-6, 1e-9], LIMITS, DISTANCES))
    title = "Attention, continuous elements, float64"
    table = Table("group", "tolerance", "largest error", "error / tolerance", title=title)
    for group, tolerance in dict.fromkeys(row[:2] for row in errors):
        worst = max(row[-1] for row in errors if row[:2] == (group, tolerance))
        table.add_row(group, f"{tolerance:g}", f"{worst:.1e}", f"{worst / tolerance:.2f}")
    return table


def network_table() -> Table:
    title = "Network, 29×29, random weights, float32, quarter turns and flips"
    table = Table("group", "elements", "largest error", title=title)
    for group, limit in (("SO2", 3), ("O2", 3), ("C8", None), ("D4", None)):
        torch.manual_seed(0)
        network = SteerableTransformer(group, channels=8, max_frequency=limit, block=partial(steerable_block, num_heads=2))
        errors = equivariance_error(network, dtype=torch.float32, size=29)
        table.add_row(group, str(len(errors)), f"{max(error for _, error in errors):.1e}")
    return table


def backbone_table() -> Table:
    angles, widths = [15.0, 30.0, 45.0], (8.0, 16.0)
    title = f"Features of a backbone (tiny, SO(2), random weights) on smooth images, largest change in % at {angles} degrees"
    table = Table("image", "Gaussians of", "stride 4", "8", "16", "32", title=title)
    torch.manual_seed(0)
    backbone = SteerableBackbone("SO2", in_type=1, stages="tiny", num_classes=0).eval()
    for size in (224, 225):
        for width in widths:
            worst = [100 * max(column) for column in zip(*feature_errors(backbone, size, angles, width), strict=True)]
            table.add_row(f"{size} × {size}", f"{width:g} pixels", *(f"{error:.2f}" for error in worst))
    return table


if __name__ == "__main__":
    console = Console(width=100)
    console.print(attention_table())
    print(f"largest over band limits {LIMITS} and distances up to {DISTANCES}, wavelengths from 6, 8 elements each")
    console.print(network_table())
    console.print(backbone_table())
