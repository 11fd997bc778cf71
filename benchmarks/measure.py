"""Time and peak memory of a layer, each measured in a separate process."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from escnn_attn.files import write_atomically

import torch
from escnn.nn import GeometricTensor

DEVICES = ("cpu", "cuda")


def require_device(device: str) -> str:
    """Returns the device if torch can use it; otherwise the command ends, and says what was expected."""
    if device not in DEVICES:
        raise SystemExit(f"expected device=cpu or device=cuda, got device={device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"expected device=cpu, as torch {torch.__version__} finds no GPU, got device=cuda")
    return device


def elapsed(step: Callable[[], object], device: str = "cpu") -> float:
    """Measures the seconds of a step, until the device has finished it."""
    _synchronize(device)
    start = time.perf_counter()
    step()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device: str = "cpu") -> int:
    """Returns the peak memory of this process, or of its tensors on the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent process
        return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(run: Callable[[GeometricTensor], GeometricTensor], x: GeometricTensor, small: GeometricTensor) -> dict[str, float]:
    """Measures seconds and additional peak bytes of a forward and a backward pass.

    The peak is that of the process: measure one layer per process (see `in_fresh_process`).

    Args:
        run: the layer.
        x: input.
        small: input of a first call, which initializes libraries.

    Returns:
        `"seconds"`, the median of at least 5 passes, and `"bytes"`.
    """
    run(small).tensor.sum().backward()
    before = peak_bytes()
    seconds: list[float] = []
    while len(seconds) < 6 or sum(seconds) < 2:
        seconds.append(elapsed(lambda: run(x).tensor.sum().backward()))
    return {"seconds": statistics.median(seconds[1:]), "bytes": peak_bytes() - before}


def seconds_in_turn(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times steps one after the other, again and again, so that what else the machine does slows all of them; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if index:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def middle_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The median, and half the distance of the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, (high - low) / 2


def ratios(seconds: Sequence[float], of: Sequence[float]) -> tuple[float, float]:
    """Median and spread of the ratios of times that were measured in turn."""
    return middle_and_spread([a / b for a, b in zip(seconds, of, strict=True)])


def machine(device: str = "cpu") -> dict[str, Any]:
    """Describes the machine."""
    found = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    return found | {"gpu": torch.cuda.get_device_name()} if device == "cuda" else found


def store(output: Path | None, options: Any, **results: Any) -> None:
    """Writes results to a JSON file, if one is asked for, beside the machine and the options (a dataclass) that they are of."""
    if output is not None:
        described = {name: str(value) for name, value in asdict(options).items()}
        report = {"machine": machine(described.get("device", "cpu")), "options": described, **results}
        write_atomically(output, lambda temporary: temporary.write_text(json.dumps(report, indent=1)))


def in_fresh_process(function: str, *arguments: Any) -> Any:
    """Calls `module:function` in a new Python process in the folder above `benchmarks`; arguments and result are JSON."""
    module, name = function.split(":")
    code = f"import json, sys; from {module} import {name}; print('\\n' + json.dumps({name}(*json.loads(sys.argv[1]))), end='')"
    command, folder = [sys.executable, "-c", code, json.dumps(arguments)], Path(__file__).parents[1]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
    return json.loads(completed.stdout.splitlines()[-1])
