"""The benchmarks run, and count what they say."""

import pytest

from escnn_attn.benchmarks.blocks import SYSTEMS, Setting, compare
from escnn_attn.benchmarks.measure import in_fresh_process

SMALL = Setting(width=56, heads=2, side=5, batch=1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_are_compared(name):
    row = compare(name, SMALL, rounds=2)
    assert set(row) == {
        "parameters",
        "flops",
        "forward and backward",
        "forward",
        "forward and backward, spread",
        "forward, spread",
    }
    assert all(value > 0 for key, value in row.items() if "spread" not in key)


def test_our_block_needs_less_arithmetic_than_a_plain_one():
    row = compare("block / torch encoder layer", Setting(side=8, batch=1), rounds=2)
    assert row["flops"] < 0.6
    assert row["parameters"] < 0.2


def test_widths_that_are_no_fields_are_refused():
    with pytest.raises(ValueError, match="multiple of 7, the size of a field, got 50"):
        compare("block / torch encoder layer", Setting(width=50))


def test_a_fresh_process_returns_what_the_function_does():
    assert in_fresh_process("math:gcd", 12, 18) == 6
