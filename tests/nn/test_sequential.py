"""Chains of modules of this library and of escnn."""

import copy

import escnn.nn
import pytest
import torch
from escnn.nn import FieldType

from escnn_attn import (
    InvariantPooling,
    SequentialModule,
    SteerableLinear,
    SteerableRMSNorm,
    SteerableSelfAttention,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.testing import assert_equivariant
from tests.helpers import cloud, relative


def test_chains_copy_in_eval_mode():
    module = chain("D4").eval()
    x = module.in_type(torch.randn(1, 1, 15, 15))
    assert torch.equal(copy.deepcopy(module)(x).tensor, module(x).tensor)


def test_escnns_linear_after_pooling_has_one_state_dict():
    t = fourier_type(planar_gspace("D4"), 2)

    def head():
        pool = InvariantPooling(t)
        return SequentialModule(pool, escnn.nn.Linear(pool.out_type, pool.out_type))

    source, target = head().eval(), head()
    target.load_state_dict(source.state_dict())
    x = t(torch.randn(2, t.size, 3, 3))
    assert relative(target.eval()(x).tensor, source(x).tensor) < 1e-6


def chain(group: str) -> SequentialModule:
    gspace = planar_gspace(group)
    t = fourier_type(gspace, 4, 2 if group in ("SO2", "O2") else None)
    image = FieldType(gspace, [gspace.trivial_repr])
    nonlinear = (
        escnn.nn.FourierELU(gspace, 4, irreps=gspace.fibergroup.bl_irreps(2), type="regular", N=16)
        if group in ("SO2", "O2")
        else escnn.nn.ELU(t)
    )
    return SequentialModule(
        escnn.nn.R2Conv(image, t, 5, stride=2, padding=2),
        steerable_block(t, num_heads=2),
        nonlinear,
        SteerableRMSNorm(t),
        escnn.nn.R2Conv(t, t, 3, padding=1),
        SteerableSelfAttention(t, num_heads=2),
        SteerableLinear(t, image),
        escnn.nn.R2Conv(image, image, 3, padding=1),
    )


@pytest.mark.parametrize("group", ["SO2", "O2", "D4"])
def test_between_modules_of_escnn_in_both_orders(group):
    module = chain(group)
    assert_equivariant(module, dtype=torch.float32, size=15)
    plain = escnn.nn.SequentialModule(*chain(group).children())
    assert_equivariant(plain, dtype=torch.float32, size=15)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    x, target = module.in_type(torch.randn(4, 1, 15, 15)), torch.randn(4, 1, 8, 8)
    losses = []
    for _ in range(15):
        loss = (module(x).tensor - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert_equivariant(module, dtype=torch.float32, size=15)


def test_a_chain_passes_its_own_check_unless_it_is_broken():
    """On SO(2), whose elements do not map a grid to itself, escnn's check of a chain would blame the pixels."""
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    chain = SequentialModule(SteerableLinear(t, t), SteerableSelfAttention(t, num_heads=1))
    assert len(chain.check_equivariance()) > 5
    SequentialModule(escnn.nn.R2Conv(t, t, 3, padding=1), SteerableSelfAttention(t, num_heads=1)).check_equivariance()
    broken = SteerableLinear(t, t)
    broken.forward_tokens = lambda tokens: tokens.with_features(tuple(f.flip(0) for f in tokens.features))
    with pytest.raises(AssertionError):
        SequentialModule(chain, broken).check_equivariance()


def test_sequential_module_passes_batch_on():
    t = fourier_type(planar_gspace("C3"), 2)
    attention = SteerableSelfAttention(t, num_heads=1).double()
    x, batch = cloud(t, points=6), torch.tensor([0, 0, 1, 1, 1, 0])
    outer = SequentialModule(SequentialModule(attention))
    assert torch.equal(outer(x, batch=batch).tensor, attention(x, batch=batch).tensor)
    assert not torch.equal(outer(x).tensor, attention(x, batch=batch).tensor)
    forgetful = SequentialModule(escnn.nn.SequentialModule(attention))
    assert torch.equal(forgetful(x).tensor, attention(x).tensor)
    with pytest.raises(TypeError, match="does not pass batch, mask and the like on"):
        forgetful(x, batch=batch)


def test_a_chain_of_escnn_hides_pooling_from_a_mask():
    t = fourier_type(planar_gspace("C3"), 2)
    forgetful = SequentialModule(escnn.nn.SequentialModule(InvariantPooling(t)))
    with pytest.raises(TypeError, match="does not pass batch, mask and the like on"):
        forgetful(cloud(t, points=6), batch=torch.arange(6) % 2)


def test_a_chain_with_a_convolution_in_a_nested_chain_is_checked_on_grids():
    t = fourier_type(planar_gspace("C4"), 2)
    nested = SequentialModule(escnn.nn.R2Conv(t, t, 3, padding=1))
    assert len(dict(SequentialModule(nested, SteerableLinear(t, t)).check_equivariance())) == 4


def test_sequential_module_loads_a_state_of_the_other_mode():
    source, target = chain("D4"), chain("D4").eval()
    target.load_state_dict(source.eval().state_dict())
    source.train()
    target.load_state_dict(source.state_dict())
    x = source.in_type(torch.randn(1, 1, 15, 15))
    assert torch.equal(source.eval()(x).tensor, target(x).tensor)
