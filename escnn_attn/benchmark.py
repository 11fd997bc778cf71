"""Time and peak memory of a layer, each size in a process of its own."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from escnn.nn import GeometricTensor

from escnn_attn.attention import SteerableSelfAttention
from escnn_attn.fields import fourier_type, planar_gspace
from escnn_attn.group_attention import GroupSelfAttention
from escnn_attn.neighborhoods import Disc, KNearest


def peak_bytes() -> int:
    """The most memory this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells would include the process that started this one
        return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(run: Callable[[GeometricTensor], GeometricTensor], x: GeometricTensor, small: GeometricTensor) -> dict[str, float]:
    """Seconds and peak bytes, above those before, of a forward and a backward pass.

    The peak is that of a process: measure one thing in each (see `in_fresh_process`).

    Args:
        run: the layer.
        x: its input.
        small: another input, to load what is loaded once.

    Returns:
        `"seconds"`, the median of at least 5 passes, and `"bytes"`.
    """
    run(small).tensor.sum().backward()
    before = peak_bytes()
    seconds: list[float] = []
    while len(seconds) < 6 or sum(seconds) < 2:
        start = time.perf_counter()
        run(x).tensor.sum().backward()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "bytes": peak_bytes() - before}


def in_fresh_process(function: str, *arguments: Any) -> Any:
    """The result of `module:function` called with arguments in a new Python process, all of them JSON."""
    module, name = function.split(":")
    code = f"import json, sys; from {module} import {name}; print('\\n' + json.dumps({name}(*json.loads(sys.argv[1]))), end='')"
    ran = subprocess.run([sys.executable, "-c", code, json.dumps(arguments)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def local_attention(domain: str, size: int) -> dict[str, float]:
    """`measure` of local attention of width 56 (8 fields of SO(2), band limit 3, 4 heads), float32, one thread, batch 1.

    Args:
        domain: `"grid"`, size × size pixels and discs of radius 3, or `"points"`, a uniform cloud and 16 nearest points.
        size: side of the grid, or number of points.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    t = fourier_type(planar_gspace("SO2"), 8, 3)
    attention = SteerableSelfAttention(t, heads=4, neighborhood=Disc(3.0) if domain == "grid" else KNearest(16))
    if domain == "grid":
        x, small = (t(torch.randn(1, t.size, side, side)) for side in (size, 8))
    else:
        x, small = (t(torch.randn(n, t.size), torch.rand(n, 2) * n**0.5) for n in (size, 64))
    return measure(attention, x, small)


def group_attention(group: str, side: int, radius: float, checkpointing: bool) -> dict[str, float]:
    """`measure` of group self-attention of 8 fields, 2 heads, on side × side pixels, float32, one thread, batch 1."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    t = fourier_type(planar_gspace(group), 8)
    attention = GroupSelfAttention(t, heads=2, neighborhood=Disc(radius), checkpointing=checkpointing)
    return measure(attention, *(t(torch.randn(1, t.size, n, n)) for n in (side, 8)))
