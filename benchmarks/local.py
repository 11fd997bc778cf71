"""Time and memory of local and group attention."""

import statistics
import time
from functools import partial

from escnn_attn import Disc, GroupSelfAttention, KNearest, SteerableSelfAttention, fourier_type, planar_gspace

import torch

from benchmarks.measure import measure


def local_attention(domain: str, size: int) -> dict[str, float]:
    """Measures local attention of width 56 (8 fields of SO(2), band limit 3, 4 heads), float32, one thread, batch 1.

    Args:
        domain: `"grid"`, size × size pixels and discs of radius 3, `"periodic"`, the same on a periodic grid, or `"points"`, a uniform cloud
            and 16 nearest points.
        size: side of the grid, or number of points.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    t = fourier_type(planar_gspace("SO2"), 8, 3)
    attention = SteerableSelfAttention(t, num_heads=4, neighborhood=KNearest(16) if domain == "points" else Disc(3.0))
    if domain != "points":
        x, small = (t(torch.randn(1, t.size, side, side)) for side in (size, 8))
    else:
        x, small = (t(torch.randn(n, t.size), torch.rand(n, 2) * n**0.5) for n in (size, 64))
    return measure(partial(attention, periodic=domain == "periodic"), x, small)


def periodic_attention(side: int, passes: int = 9) -> dict[str, float]:
    """Median CPU seconds of forward and backward passes of that attention on a grid with a border, on a periodic one, and their ratio."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    t = fourier_type(planar_gspace("SO2"), 8, 3)
    attention = SteerableSelfAttention(t, num_heads=4, neighborhood=Disc(3.0))
    x, seconds = t(torch.randn(1, t.size, side, side)), {"border": [], "periodic": []}
    for _ in range(passes + 1):  # in turn, so that both see what else the machine does
        for name, taken in seconds.items():
            start = time.process_time()
            attention(x, periodic=name == "periodic").tensor.sum().backward()
            taken.append(time.process_time() - start)
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    return {**medians, "ratio": medians["periodic"] / medians["border"]}


def group_attention(group: str, side: int, radius: float, checkpointing: bool) -> dict[str, float]:
    """Measures group self-attention of 8 fields, 2 heads, on side × side pixels, float32, one thread, batch 1."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    t = fourier_type(planar_gspace(group), 8)
    attention = GroupSelfAttention(t, num_heads=2, neighborhood=Disc(radius), checkpointing=checkpointing)
    return measure(attention, *(t(torch.randn(1, t.size, n, n)) for n in (side, 8)))
