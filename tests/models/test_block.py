"""Blocks and stacks."""

import pickle
from functools import partial

import escnn.nn
import pytest
import torch
from escnn.nn import FieldType
from torch import nn

from escnn_attn import (
    BilinearFeedForward,
    Disc,
    FourierFeedForward,
    GatedFeedForward,
    InvariantPooling,
    QueryKeyRotaryEmbedding,
    RotaryEmbedding,
    SequentialModule,
    SteerableCrossAttention,
    SteerableFieldTransformer,
    SteerableLinear,
    SteerableRMSNorm,
    SteerableSelfAttention,
    SteerableStack,
    SteerableTransformer,
    SteerableTransformerBlock,
    TokenModule,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.testing import random_elements, transform
from tests.helpers import cloud, randomize, relative, small_model

FEEDFORWARDS = {"bilinear": BilinearFeedForward, "gated": GatedFeedForward, "fourier": FourierFeedForward}


@pytest.mark.parametrize("name", ["SO2", "O2"])
@pytest.mark.parametrize("feedforward", FEEDFORWARDS)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_four_blocks_at_arbitrary_positions_keep_the_tolerance_asked(name, feedforward, tolerance, rng):
    """The whole tensor-level core: blocks and pooling, for continuous elements, in float64."""
    t = fourier_type(planar_gspace(name), 6, 3)
    layer = FEEDFORWARDS[feedforward]
    layer = partial(layer, tolerance=tolerance) if feedforward == "fourier" else layer
    block = partial(steerable_block, num_heads=2, feedforward=layer, position=partial(RotaryEmbedding, tolerance=tolerance))
    stack = SteerableStack([block(t) for _ in range(4)]).double()
    pool, x = InvariantPooling(t).double(), cloud(t, points=40, radius=5.0)
    with torch.no_grad():
        y = stack(x)
        for g in random_elements(t.fibergroup, 4, rng):
            moved = stack(transform(x, g))
            assert relative(moved.tensor, transform(y, g).tensor) < 10 * tolerance
            assert relative(pool(moved).tensor, pool(y).tensor) < 10 * tolerance


def test_a_stack_converts_once_and_equals_its_blocks():
    t = fourier_type(planar_gspace("D4"), 3)
    blocks = [steerable_block(t, num_heads=1) for _ in range(2)]
    x = t(torch.randn(2, t.size, 5, 5))
    assert relative(SteerableStack(blocks)(x).tensor, blocks[1](blocks[0](x)).tensor) < 1e-5


def test_a_block_refuses_modules_of_other_types():
    gspace = planar_gspace("C4")
    one, other = fourier_type(gspace, 2), fourier_type(gspace, 3)
    with pytest.raises(TypeError, match="a residual block keeps its type"):
        SteerableTransformerBlock(SteerableSelfAttention(one, num_heads=1), BilinearFeedForward(other))
    with pytest.raises(TypeError, match="a residual block keeps its type"):
        SteerableTransformerBlock(SteerableSelfAttention(one, other, num_heads=1), BilinearFeedForward(one))


def test_drop_path_skips_a_branch_for_whole_samples():
    t = fourier_type(planar_gspace("C4"), 2, 2)
    block = steerable_block(t, num_heads=1, drop_path=0.5)
    x = t(torch.randn(64, t.size, 3, 3))
    unchanged = (block(x).tensor == x.tensor).flatten(1)
    assert torch.equal(unchanged.all(1), unchanged.any(1))
    assert 0.1 < unchanged.all(1).double().mean() < 0.45
    assert not (block.eval()(x).tensor == x.tensor).any()


@pytest.mark.parametrize("group", ["SO2", pytest.param("D4", marks=pytest.mark.slow)])
def test_each_module_passes_its_own_check(group):
    t = fourier_type(planar_gspace(group), 2, 2 if group == "SO2" else None)
    modules = [
        SteerableLinear(t, t),
        SteerableRMSNorm(t),
        SteerableSelfAttention(t, num_heads=1),
        steerable_block(t, num_heads=1),
    ]
    modules += [layer(t) for layer in FEEDFORWARDS.values()] + [InvariantPooling(t)]
    for module in modules:
        assert len(module.check_equivariance()) > 4
    assert len(dict(small_model(group).check_equivariance())) == (4 if group == "SO2" else 8)


def test_modules_that_do_not_take_tokens_are_refused():
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    convolution = escnn.nn.R2Conv(t, t, 3, padding=1)
    for make in (
        lambda: SteerableTransformerBlock(SteerableSelfAttention(t, num_heads=1), convolution),
        lambda: SteerableStack([SteerableLinear(t, t), convolution]),
    ):
        with pytest.raises(TypeError, match=r"expected a layer on tokens, .* got R2Conv"):
            make()
    with pytest.raises(TypeError, match="got SteerableCrossAttention"):
        SteerableStack([SteerableCrossAttention(t, t, num_heads=1)])


@pytest.mark.parametrize("group", ["SO2", "D4"])
def test_exported_modules_are_plain_and_equal(group):
    t = fourier_type(planar_gspace(group), 2, 2 if group == "SO2" else None)
    x = torch.randn(2, t.size, 7, 7)
    for module in [
        steerable_block(t, num_heads=1),
        SteerableLinear(t, t),
        FourierFeedForward(t),
        GatedFeedForward(t),
        InvariantPooling(t),
    ]:
        exported = pickle.loads(pickle.dumps(module.export()))
        assert not any(isinstance(part, escnn.nn.R2Conv) for part in exported.modules())
        assert relative(exported(x), module.eval()(t(x)).tensor) < 1e-6
        exported(torch.randn(1, t.size, 5, 5))  # another grid than any it has met
    chained = SequentialModule(escnn.nn.R2Conv(t, t, 3), steerable_block(t, num_heads=1)).eval()
    assert relative(chained.export()(x), chained(t(x)).tensor) < 1e-5


@pytest.mark.parametrize("model", ["logits", "fields"])
def test_exported_networks_are_plain_and_equal(model):
    fields = partial(small_model, "O2", SteerableFieldTransformer, out_fields={"scalars": 1, "vectors": 2})
    model = small_model("O2") if model == "logits" else fields()
    images = torch.randn(2, 1, 29, 29)
    model(images)
    exported = pickle.loads(pickle.dumps(model.export()))
    assert not any(isinstance(part, escnn.nn.R2Conv) for part in exported.modules())
    assert not any(isinstance(value, FieldType) for part in exported.modules() for value in vars(part).values())
    assert model.training
    expected = model.eval()(images)
    expected = expected if isinstance(expected, torch.Tensor) else expected.tensor
    assert relative(exported(images), expected) < 1e-5
    assert exported(torch.randn(1, 1, 37, 37)).shape[1] == expected.shape[1]  # another grid


def test_plain_rotary_positions_see_direction():
    """The baseline's embedding tells left from right: it is not a function of distance alone."""
    t = fourier_type(planar_gspace("trivial"), 8)
    module = SteerableSelfAttention(t, num_heads=1, position=QueryKeyRotaryEmbedding).double()
    x = cloud(t, points=9)
    assert relative(module(t(x.tensor, -x.coords)).tensor, module(x).tensor) > 1e-3


def test_shapes_and_repr():
    t = fourier_type(planar_gspace("C4"), 2)
    attention = SteerableSelfAttention(t, fourier_type(planar_gspace("C4"), 3), num_heads=1)
    assert attention.evaluate_output_shape((2, 8, 5, 7)) == (2, 12, 5, 7)
    assert attention.evaluate_output_shape((9, 8)) == (9, 12)
    assert "in_type" in repr(attention)
    assert "out_type" in repr(attention)
    with pytest.raises(ValueError, match="expected a shape"):
        attention.evaluate_output_shape((2, 9, 5, 7))
    assert small_model("C4").evaluate_output_shape((3, 1, 29, 29)) == (3, 10)


@pytest.mark.parametrize("neighborhood", [None, Disc(3.0)])
def test_a_block_is_shown_in_a_few_lines(neighborhood):
    """With all that was chosen, and without tables and parameter lists."""
    shown = repr(steerable_block(fourier_type(planar_gspace("O2"), 64, 3), num_heads=4, neighborhood=neighborhood))
    assert len(shown.splitlines()) <= 15
    parts = ("in_type", "num_heads=4", "head_channels=16", "max_frequency=3", f"neighborhood={neighborhood}", "wavelengths=")
    assert [part for part in parts if part not in shown] == []
    assert "ParameterList" not in shown


def test_stacks_that_do_not_fit_are_refused():
    wide, narrow = (fourier_type(planar_gspace("C4"), n) for n in (4, 2))
    with pytest.raises(TypeError, match="SteerableLinear takes"):
        SteerableStack([SteerableLinear(wide, narrow), SteerableLinear(wide, narrow)])
    with pytest.raises(ValueError, match="at least one layer"):
        SteerableStack([])


def test_every_module_inside_is_called_as_one():
    """Hooks fire, and wrappers of layers take their place."""
    model, called = small_model("SO2"), set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    model(torch.randn(1, 1, 29, 29))
    inner = {
        name for name, module in model.blocks.named_modules(prefix="blocks") if isinstance(module, TokenModule | nn.Linear)
    }
    assert inner | {"pool", "readout"} <= called


def test_checkpointed_stacks_give_the_plain_gradients_in_less_memory():
    t = fourier_type(planar_gspace("SO2"), 4, 2)
    stack = SteerableStack([randomize(steerable_block(t, num_heads=2, dropout=0.5)) for _ in range(4)])
    x, gradients, kept = t(torch.randn(2, t.size, 9, 9)), [], []
    for stack.checkpointing in (False, True):
        stack.zero_grad()
        torch.manual_seed(1)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda y, to=sizes: (to.append(y.nbytes), y)[1], lambda y: y):
            loss = stack(x).tensor.square().sum()
        loss.backward()
        gradients.append([p.grad for p in stack.parameters()])
        kept.append(sum(sizes))
    for plain, again in zip(*gradients, strict=True):
        assert relative(again, plain) < 1e-5
    assert kept[1] < 0.1 * kept[0]


def test_torchs_wrapper_of_activation_checkpointing_goes_around_blocks():
    module = pytest.importorskip("torch.distributed.algorithms._checkpoint.checkpoint_wrapper")
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    stack, x = SteerableStack([steerable_block(t, num_heads=1) for _ in range(2)]), t(torch.randn(1, t.size, 5, 5))
    expected = stack(x).tensor
    module.apply_activation_checkpointing(stack, check_fn=lambda part: isinstance(part, SteerableTransformerBlock))
    found = stack(x).tensor
    found.sum().backward()
    assert torch.equal(found, expected)


def test_networks_checkpoint_their_blocks():
    assert SteerableTransformer("SO2", channels=4, depth=1, checkpointing=True).blocks.checkpointing
    assert SteerableFieldTransformer("SO2", out_fields=1, channels=4, depth=1, checkpointing=True).blocks.checkpointing
