"""Ratios of two systems, timed in turn, and memory and construction of one system."""

import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from escnn_attn.training import keep_freed_memory

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.backends import backends
from benchmarks.blocks import SYSTEMS, Run, Setting, System
from benchmarks.measure import elapsed, middle_and_spread, peak_bytes


def compare(
    ours: Callable[[Setting], System], theirs: Callable[[Setting], System], setting: Setting, rounds: int = 9
) -> dict[str, Any]:
    """Compares two systems: parameters, times with half the distance of their quartiles, and what computes the attention of each.

    Args:
        ours: makes the system of the numerator.
        theirs: makes the system of the denominator.
        setting: of both systems.
        rounds: number of timings of each system, after two for warm-up.

    Returns:
        ratios of parameters and of times, medians, and under `"attention"` the names that `backends` finds.
    """
    keep_freed_memory()
    torch._dynamo.reset()  # code compiled for other systems
    torch.manual_seed(0)
    (first, run), (second, other) = ours(setting), theirs(setting)
    row: dict[str, Any] = {"parameters": _count(first) / _count(second)}
    for name, step, mode in (
        ("forward and backward", _train, True),
        ("forward", _forward, True),
        ("forward in eval", _forward, False),
    ):
        for module in (first, second):
            module.train(mode)
        ratios = []
        for index in range(rounds + 2):
            seconds, of_second = (elapsed(partial(step, system), setting.device) for system in (run, other))
            if index > 1:
                ratios.append(seconds / of_second)
        row[name], row[f"{name}, spread"] = middle_and_spread(ratios)
    first.train()
    second.train()
    return {**row, "attention": [backends(partial(_train, system)) for system in (run, other)]}


@cache
def flops(make: Callable[[Setting], System], setting: Setting) -> int:
    """Counts multiplications and additions of a forward and a backward pass in train mode, with unfused attention."""
    _, run = make(setting)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run().sum().backward()
    return counter.get_total_flops()


def cost(system: str, options: dict) -> dict[str, float]:
    """Measures seconds and additional peak bytes of a forward and a backward pass, and seconds of construction.

    The peak is that of the process, or of the GPU: measure one system per process (see `in_fresh_process`).

    Args:
        system: key of `SYSTEMS`.
        options: arguments of `Setting`, and `threads`.
    """
    torch.set_num_threads(options.pop("threads", 2))
    setting = Setting(**options)
    _, warm = SYSTEMS[system](Setting(**{**options, "side": 4, "batch": 1}))
    _train(warm)
    start = time.perf_counter()
    _, run = SYSTEMS[system](setting)
    setup, before = time.perf_counter() - start, peak_bytes(setting.device)
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < 6 and sum(seconds) < 5):
        seconds.append(elapsed(partial(_train, run), setting.device))
    return {"seconds": statistics.median(seconds[1:]), "bytes": peak_bytes(setting.device) - before, "setup": setup}


def construction(depth: int, width: int) -> float:
    """Measures the seconds to build `depth` blocks of SO(2), band limit 3; measure in a new process."""
    start = time.perf_counter()
    for _ in range(depth):
        SYSTEMS["block"](Setting(width=width, side=1, batch=1))
    return time.perf_counter() - start


def _train(run: Run) -> None:
    run().sum().backward()


def _forward(run: Run) -> None:
    with torch.no_grad():
        run()


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
