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

from escnn.nn import GeometricTensor


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
