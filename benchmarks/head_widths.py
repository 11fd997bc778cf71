"""Prints the time of torch's fused attention by head width, forward and backward: python benchmarks/head_widths.py device=cuda

Options:
    device: cuda or cpu.
    batch: number of samples.
    tokens: number of tokens.
    heads: number of heads.
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))  # the parent of the package benchmarks, for use as a script

from escnn_attn.training import parse_options

from benchmarks.measure import elapsed, require_device

WIDTHS = (140, 144, 116, 120, 108, 112, 100, 104, 128, 67, 72)


@dataclass
class Options:
    device: str = "cuda"
    batch: int = 8
    tokens: int = 784
    heads: int = 8


def seconds(options: Options, width: int, dtype: torch.dtype, rounds: int = 20) -> float:
    """Median over rounds."""
    shape = (options.batch, options.heads, options.tokens, width)
    q, k, v = (torch.randn(shape, device=options.device, dtype=dtype, requires_grad=True) for _ in range(3))
    return statistics.median(
        elapsed(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward(), options.device) for _ in range(rounds)
    )


if __name__ == "__main__":
    options = parse_options(Options, __doc__)
    print(torch.cuda.get_device_name() if require_device(options.device) == "cuda" else "CPU", torch.__version__)
    for dtype in (torch.bfloat16, torch.float32):
        for width in WIDTHS:
            print(f"{str(dtype)[6:]:>10} {width:4d}  {1e3 * seconds(options, width, dtype):8.3f} ms", flush=True)
