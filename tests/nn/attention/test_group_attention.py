"""Lifting and group self-attention on finite groups."""

import numpy as np
import pytest
import torch
from escnn.gspaces import flip2dOnR2

from escnn_attn import (
    Disc,
    GroupSelfAttention,
    KNearest,
    LiftingSelfAttention,
    SequentialModule,
    field_type,
    fourier_type,
    planar_gspace,
)
from escnn_attn.fields import ExactBuffer
from escnn_attn.nn.position._rotation import GOLDEN_ANGLE
from escnn_attn.testing import equivariance_error
from tests.helpers import assert_every_parameter_has_gradient, cloud, relative, worst

FINITE = ["trivial", "C3", "C4", "C8", "D1", "D4", "D8"]
NEAR = {"all": None, "disc": Disc(2.0), "nearest": KNearest(5)}


def lifting(name, **options):
    gspace = planar_gspace(name) if isinstance(name, str) else name
    return LiftingSelfAttention(field_type(gspace, scalars=3), fourier_type(gspace, 5), num_heads=2, **options).double()


def group(name, **options):
    gspace = planar_gspace(name) if isinstance(name, str) else name
    return GroupSelfAttention(fourier_type(gspace, 3), fourier_type(gspace, 5), num_heads=2, **options).double()


@pytest.mark.parametrize("name", [*FINITE, flip2dOnR2(axis=0.7)], ids=str)
@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("layer", [lifting, group])
def test_exactly_equivariant(name, near, layer):
    module = layer(name, neighborhood=NEAR[near])
    assert worst(equivariance_error(module, domain="points", size=5)) < 1e-12
    assert worst(equivariance_error(module, domain="grid", size=5)) < 1e-12
    x = cloud(module.in_type)
    shifted = module.in_type(x.tensor, x.coords + torch.tensor([5.0, -3.0]))
    assert relative(module(shifted).tensor, module(x).tensor) < 1e-12


@pytest.mark.parametrize("layer", [lifting, group])
def test_a_wrong_table_is_caught(layer):
    """With waves that do not turn with the group, or elements in another order, the check fails."""
    module = layer("D4")
    module.waves._exact[:] = module.waves._exact[:1]
    module.double()
    assert worst(equivariance_error(module, domain="points", size=5)) > 1e-2
    if layer is group:
        module = layer("D4")
        module.relative = ExactBuffer(np.roll(module.relative._exact, 1, 1))
        assert worst(equivariance_error(module, domain="points", size=5)) > 1e-2


def naive(module, x, near):
    """The formulas of lifting and group self-attention in loops over (i, g) and (j, h)."""
    gspace = module.in_type.gspace
    elements = list(gspace.fibergroup.elements)
    heads, c, pairs = module.num_heads, module.channels, module.channels // 2
    lifts = isinstance(module, LiftingSelfAttention)
    fields = x.tensor.unflatten(1, (-1, 1 if lifts else len(elements)))  # j c h
    projected = module.project_in(fields.mT).unflatten(-1, (3, heads, c))  # j h p head c
    wavelengths = np.geomspace(6, 60, pairs) if pairs > 1 else [360**0.5]
    waves = [2 * np.pi / l * np.array([np.cos(f * GOLDEN_ANGLE), np.sin(f * GOLDEN_ANGLE)]) for f, l in enumerate(wavelengths)]
    out = torch.zeros(len(x.coords), len(elements), heads, c, dtype=torch.float64)
    for i, x_i in enumerate(x.coords):
        for a, g in enumerate(elements):
            turned = torch.tensor(np.stack([gspace.basespace_action(g) @ w for w in waves]))
            for head in range(heads):
                logits, values = [], []
                for j, x_j in enumerate(x.coords):
                    if near is not None and (x_j - x_i).norm() > near.radius:
                        continue
                    angle = turned @ (x_j - x_i)
                    for b, h in enumerate([None] if lifts else elements):
                        key = projected[j, b, 1, head]
                        if not lifts:
                            key = key + module.embedding[elements.index(~g @ h), head]
                        rotated = torch.complex(key[:pairs], key[pairs:]) * torch.exp(1j * angle)
                        query = projected[i, 0 if lifts else a, 0, head]
                        logits.append((torch.cat([rotated.real, rotated.imag]) * query).sum() / c**0.5)
                        values.append(projected[j, b, 2, head])
                out[i, a, head] = torch.stack(logits).softmax(0) @ torch.stack(values)
    return module.project_out(out.flatten(2)).transpose(1, 2).flatten(1)


@pytest.mark.parametrize("name", ["C3", "D2"])
@pytest.mark.parametrize("near", [None, Disc(2.5)])
@pytest.mark.parametrize("layer", [lifting, group])
def test_agrees_with_a_naive_twin(name, near, layer):
    module = layer(name, neighborhood=near)
    x = cloud(module.in_type, points=7)
    with torch.no_grad():
        assert relative(module(x).tensor, naive(module, x, near)) < 1e-12


@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("layer", [lifting, group])
def test_checkpointing_gives_the_same_gradients_with_less_memory(near, layer):
    module, memory, results = layer("C8", neighborhood=NEAR[near]), [], []
    x = module.in_type(torch.randn(2, module.in_type.size, 6, 7, dtype=torch.float64))
    for module.checkpointing in (False, True):
        kept = {}
        module.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(store(kept), lambda t: t):
            out = module(x).tensor
        out.pow(2).sum().backward()
        results.append([out, *(p.grad.clone() for p in module.parameters())])
        memory.append(sum(kept.values()))
    assert_every_parameter_has_gradient(module)
    assert all(relative(a, b) < 1e-12 for a, b in zip(*results))
    assert memory[1] < (0.5 if layer is group else 0.8) * memory[0]


def store(kept):
    """Notes the bytes behind each saved tensor once."""
    return lambda t: kept.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t


@pytest.mark.parametrize("layer", [lifting, group])
def test_padding_and_clouds(layer):
    module = layer("C4")
    x = cloud(module.in_type, points=12)
    batch, mask = torch.arange(12) % 2, torch.arange(12) % 5 != 0
    out = module(module.in_type(x.tensor.masked_fill(~mask[:, None], torch.nan), x.coords), batch=batch, mask=mask).tensor
    for b in (0, 1):
        member = (batch == b) & mask
        assert relative(out[member], module(module.in_type(x.tensor[member], x.coords[member])).tensor) < 1e-12
    assert out[~mask].abs().max() == 0


def test_lifting_sees_directions():
    """A blob off the center gives functions that are not constant on the group."""
    module = lifting("C8")
    x = cloud(module.in_type, points=9)
    values = module(x).tensor.unflatten(1, (5, 8))
    assert values.std(dim=2).mean() > 1e-2


def test_a_chain_of_lifting_and_group_attention_trains():
    first = lifting("D4")
    chain = SequentialModule(first, GroupSelfAttention(first.out_type, num_heads=2, neighborhood=Disc(1.5)).double())
    assert worst(equivariance_error(chain, size=5)) < 1e-12
    chain(cloud(chain.in_type)).tensor.pow(2).sum().backward()
    assert_every_parameter_has_gradient(chain)
    exported = chain[1].eval().export()
    x = torch.randn(1, first.out_type.size, 4, 4, dtype=torch.float64)
    assert relative(exported(x), chain[1](first.out_type(x)).tensor) < 1e-12


def test_wrong_types_are_refused():
    d4, so2 = planar_gspace("D4"), planar_gspace("SO2")
    regular, scalars = fourier_type(d4, 2), field_type(d4, scalars=2)
    with pytest.raises(TypeError, match="copies of the trivial representation of D4"):
        LiftingSelfAttention(regular, regular, num_heads=1)
    with pytest.raises(TypeError, match="copies of the regular representation of D4"):
        GroupSelfAttention(scalars, regular, num_heads=1)
    with pytest.raises(TypeError, match="copies of the regular representation of D4"):
        LiftingSelfAttention(scalars, scalars, num_heads=1)
    with pytest.raises(ValueError, match="take SteerableSelfAttention"):
        LiftingSelfAttention(field_type(so2, scalars=2), fourier_type(so2, 2, 1), num_heads=1)
    for options, message in [
        ({"num_heads": 0}, "heads must be"),
        ({"num_heads": 1, "head_channels": 3}, "must be even"),
        ({"num_heads": 1, "wavelengths": (5.0, 2.0)}, "shortest <= longest"),
    ]:
        with pytest.raises(ValueError, match=message):
            GroupSelfAttention(regular, **options)
    with pytest.raises(TypeError, match="expected a neighborhood"):
        GroupSelfAttention(regular, num_heads=1, neighborhood=2)


@pytest.mark.parametrize("layer", [lifting, group])
def test_positions_that_want_a_gradient_are_refused(layer):
    """None flows to the phases."""
    module = layer("C4")
    x = cloud(module.in_type)
    moving = module.in_type(x.tensor, x.coords.clone().requires_grad_())
    with pytest.raises(ValueError, match="gives no gradient with respect to positions"):
        module(moving)
    with torch.no_grad():
        assert relative(module(moving).tensor, module(x).tensor) == 0
