"""The benchmarks run, and count what they say."""

from functools import partial

import pytest
import torch

from benchmarks.blocks import PAIRS, SYSTEMS, Setting, plain, steerable
from benchmarks.images import changes, network_of
from benchmarks.local import periodic_attention
from benchmarks.measure import in_fresh_process, middle_and_spread, ratios, seconds_in_turn
from benchmarks.pairwise import pairwise_attention
from benchmarks.ratios import compare, construction, cost, flops
from escnn_attn import RotaryEmbedding, SteerableSelfAttention, antialiased_stem, convolution_stem, fourier_type, planar_gspace
from escnn_attn.tokens import Tokens, grid_of
from tests.helpers import relative

SMALL = Setting(width=56, num_heads=2, side=5, batch=1)


@pytest.mark.parametrize("name", PAIRS)
def test_systems_are_compared(name):
    row = compare(*PAIRS[name], SMALL, rounds=2)
    assert len(row) == 7
    assert all(value > 0 for key, value in row.items() if "spread" not in key)


@pytest.mark.parametrize("name", SYSTEMS)
def test_costs_are_measured(name):
    found = cost(name, {"width": 56, "num_heads": 2, "side": 5, "batch": 1})
    assert found["seconds"] > 0
    assert found["setup"] > 0
    assert found["bytes"] >= 0


def test_our_block_needs_less_arithmetic_than_a_plain_one():
    """A regression guard that no machine can disturb: at 196 tokens and width 448, 0.34 of the plain layer's."""
    assert flops(steerable, Setting()) < 0.36 * flops(plain, Setting())


def test_our_block_keeps_less_than_so_much_for_its_gradient():
    """A regression guard on memory: bytes saved for the backward pass, parameters aside; 1.7 times those of the plain one."""

    def saved(make) -> int:
        module, run = make(Setting())
        own = {p.untyped_storage().data_ptr() for p in module.parameters()}
        storages = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept, so that no address is given twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run()
        return sum(size for size, _ in storages.values())

    assert saved(steerable) < 1.8 * saved(plain)


@pytest.mark.slow
def test_blocks_are_built_in_no_time():
    """Twelve of width 448, in a new process: no basis is computed at import or on first use."""
    assert in_fresh_process("benchmarks.ratios:construction", 12, 448) < 1
    assert construction(1, 56) > 0


def test_pairwise_kernels_give_the_same_attention():
    t = fourier_type(planar_gspace("SO2"), 8, 2)
    module = SteerableSelfAttention(t, num_heads=2, position=partial(RotaryEmbedding, tolerance=1e-12)).double()
    x = torch.randn(2, t.size, 5, 3, dtype=torch.float64)
    tokens = Tokens.on(grid_of(x), x, module.in_layout)
    found, expected = pairwise_attention(module, tokens), module.forward_tokens(tokens)
    assert all(relative(a, b) < 1e-10 for a, b in zip(found.features, expected.features, strict=True))


def test_periodic_grids_are_compared():
    found = periodic_attention(8, passes=2)
    assert found["ratio"] == found["periodic"] / found["border"] > 0


def test_widths_that_are_no_fields_are_refused():
    with pytest.raises(ValueError, match="multiple of 7, the size of a field, got 50"):
        steerable(Setting(width=50))


def test_a_fresh_process_returns_what_the_function_does():
    assert in_fresh_process("math:gcd", 12, 18) == 6


@pytest.mark.slow
@pytest.mark.parametrize("make", [steerable, plain])
def test_time_of_a_step(make, benchmark):
    """For pytest-benchmark to compare with earlier runs: `pytest -m slow --benchmark-autosave --benchmark-compare`."""
    _, run = make(Setting())
    benchmark(lambda: run().sum().backward())


def test_steps_are_timed_in_turn_after_a_first_round():
    order = []
    seconds = seconds_in_turn({name: partial(order.append, name) for name in "ab"}, rounds=2)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in seconds.values()] == [2, 2]
    assert middle_and_spread([1.0, 2.0, 3.0, 4.0, 50.0]) == (3.0, 12.75)
    assert ratios([2.0, 6.0, 4.0], [1.0, 2.0, 4.0]) == (2.0, 1.0)


def test_changes_of_networks_and_stems_are_measured():
    ours, of_digits = (network_of(stem, channels=8, depth=1) for stem in (antialiased_stem, convolution_stem))
    found, reference = changes(ours, 96, 6.0), changes(of_digits, 29, 2.0)
    for part in ("network", "stem"):
        assert 0 < found[part] < 1 < reference[part]
