"""The benchmarks run, and count what they say."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import tables
from benchmarks.backends import backends
from benchmarks.blocks import LARGE, PAIRS, SWITCHES, SYSTEMS, Setting, plain, steerable
from benchmarks.compare_blocks import Options
from benchmarks.epochs import ATTENTION, C8, IMAGES, Recipe, epochs
from benchmarks.images import changes, network_of
from benchmarks.local import periodic_attention
from benchmarks.measure import elapsed, in_fresh_process, middle_and_spread, ratios, require_device, seconds_in_turn
from benchmarks.pairwise import pairwise_attention
from benchmarks.ratios import compare, construction, cost, flops
from benchmarks.training_times import SYSTEMS as SYSTEMS_OF_STORY
from benchmarks.training_times import draw, recorded, rows_of
from escnn_attn import (
    RotaryEmbedding,
    SteerableBatchNorm,
    SteerableSelfAttention,
    antialiased_stem,
    convolution_stem,
    fourier_type,
    planar_gspace,
)
from escnn_attn.tokens import Tokens, grid_of
from tests.helpers import relative

SMALL = Setting(width=56, num_heads=2, side=5, batch=1)
SWITCHED = Setting(side=7, batch=1)


@pytest.mark.parametrize("name", PAIRS)
def test_systems_are_compared(name):
    row = compare(*PAIRS[name], SMALL, rounds=2)
    assert row.pop("attention") == [["CPU flash"], ["CPU flash"]]  # both sides of a ratio take the fused kernel
    assert len(row) == 7
    assert all(value > 0 for key, value in row.items() if "spread" not in key)


def test_systems_run_in_half_precision():
    module, run = steerable(replace(SMALL, dtype="bfloat16"))
    out = run()
    out.sum().backward()
    assert {x.dtype for x in (out, *module.parameters())} == {torch.bfloat16}


@pytest.mark.parametrize("name", SWITCHES)
def test_switches_are_compared_to_the_default(name):
    ours, default = SWITCHES[name]
    assert default is steerable
    assert flops(ours, SWITCHED) != flops(default, SWITCHED)


def test_the_implementation_of_attention_is_found():
    x = torch.randn(1, 2, 8, 16, requires_grad=True)

    def attend() -> None:
        F.scaled_dot_product_attention(x, x, x).sum().backward()

    assert backends(attend) == ["CPU flash"]
    assert backends(lambda: x.square().sum().backward()) == []
    with sdpa_kernel(SDPBackend.MATH):
        assert backends(attend) == ["math"]


def test_settings_are_those_asked_for():
    assert [(s.side**2, s.batch, s.width) for s in Options(group="O2").settings()] == [
        (196, 4, 448), (784, 1, 448), (3136, 1, 448), (64, 16, 224),
    ]  # fmt: skip
    (one,) = Options(tokens=25, batch=2, width=56, dtype="bfloat16", group="O2").settings()
    assert one == Setting(group="O2", side=5, batch=2, width=56, dtype="bfloat16")


def test_devices_and_types_that_are_none_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"expected device=cpu, as torch .* finds no GPU, got device=cuda"):
        Options(device="cuda").settings()
    with pytest.raises(SystemExit, match="expected device=cpu or device=cuda, got device=gpu"):
        require_device("gpu")
    with pytest.raises(SystemExit, match=r"one of float32, .*got dtype=half"):
        Options(dtype="half").settings()


def test_only_some_pairs_are_compared_on_many_tokens(monkeypatch, capsys):
    rounds = []
    row = {name: 1.0 for time in tables.TIMES for name in (time, f"{time}, spread")} | {
        "parameters": 1.0,
        "attention": [["math"], []],
    }
    monkeypatch.setattr(tables, "compare", lambda ours, theirs, setting, count: rounds.append(count) or row)
    monkeypatch.setattr(tables, "flops", lambda make, setting: 1)
    found = tables.ratios([SMALL, replace(SMALL, side=56)], dict(PAIRS), rounds=12)
    assert [name["systems"] for name in found if name["side"] == 56] == [name for name in PAIRS if name in LARGE]
    assert len(LARGE & set(PAIRS)) == 2
    assert "block, expansion 4 / torch's encoder layer" in [name["systems"] for name in found if name["side"] == 5]
    assert set(rounds) == {12, 4}
    assert "attention by math / none" in capsys.readouterr().out


def test_a_gpu_is_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append("wait"))
    assert elapsed(lambda: waits.append("step"), "cuda") > 0
    assert waits == ["wait", "step", "wait"]
    elapsed(lambda: None)
    assert len(waits) == 3


@pytest.mark.parametrize("name", SYSTEMS)
def test_costs_are_measured(name):
    found = cost(name, {"width": 56, "num_heads": 2, "side": 5, "batch": 1})
    assert found["seconds"] > 0
    assert found["setup"] > 0
    assert found["bytes"] >= 0


def test_our_block_needs_less_arithmetic_than_a_plain_one():
    """A regression guard that no machine can disturb: at 196 tokens and width 448, 0.35 of the plain layer's."""
    assert flops(steerable, Setting()) < 0.37 * flops(plain, Setting())


def test_our_block_keeps_less_than_so_much_for_its_gradient():
    """A regression guard on memory: bytes saved for the backward pass, parameters aside; 1.3 times those of the plain one."""

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

    assert saved(steerable) < 1.4 * saved(plain)


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


def test_convolutions_of_escnn_are_those_of_the_recipe():
    """The same parameters and, as the nonlinearity of finite groups is the same, the same logits."""
    ours, theirs = (
        Recipe(*C8).network().eval(),
        Recipe(*C8, of_escnn=True).network().eval(),
    )  # with statistics of their own they differ
    assert not any(isinstance(module, SteerableBatchNorm) for module in theirs.modules())
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    assert all(a.numel() == b.numel() for a, b in pairs)
    assert sum(a.numel() for a, _ in pairs) == pytest.approx(50_000, rel=0.1)
    with torch.no_grad():
        for a, b in pairs:
            b.copy_(a.reshape(b.shape))
    images = torch.rand(2, 1, 29, 29)
    assert relative(theirs(images), ours(images)) < 1e-4


def test_epochs_are_compared():
    systems = {"one": ATTENTION, "two": Recipe(*C8)}
    rows = epochs(systems, rounds=2, batch=2)
    assert list(rows) == ["one", "two"]
    assert rows["one"]["ratio"] == 1
    assert rows["one"]["seconds"] * 2 / IMAGES < 60  # of one step
    assert rows["one"]["parameters"] == 51_456
    assert [round(x, 2) for x in rows["one"]["validation"]] == [98.85, 98.65, 98.9]
    assert rows["two"]["seconds"] > 0


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


def test_times_of_training_are_drawn_beside_accuracies(tmp_path):
    systems = {name: SYSTEMS_OF_STORY[name] for name in ("plain attention", "steerable attention, SO(2)")}
    rows = rows_of(systems | {"not trained": recorded("steerable_so2_fine_50k", "nowhere")}, rounds=2, batch=2)
    assert list(rows) == list(systems)
    assert all(len(row["test"]) == 3 and row["minutes"] > 0 for row in rows.values())
    draw(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
