"""Mixed precision: every layer under autocast, from inputs of any precision; and nothing at all as input."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from escnn.nn import GeometricTensor
from torch import nn

from escnn_attn import (
    BilinearFeedForward,
    Disc,
    DistanceBias,
    FourierFeedForward,
    FourierGELU,
    GatedFeedForward,
    GroupSelfAttention,
    InvariantPooling,
    LiftingSelfAttention,
    NoPosition,
    QueryKeyRotaryEmbedding,
    RadialBias,
    SteerableBatchNorm,
    SteerableCrossAttention,
    SteerableLinear,
    SteerableRMSNorm,
    SteerableSelfAttention,
    SteerableTransformer,
    field_type,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from tests.helpers import POSITIONS, randomize, relative, small_model

SO2, O2, D4 = planar_gspace("SO2"), planar_gspace("O2"), planar_gspace("D4")
SPECTRAL, REGULAR = fourier_type(SO2, 4, 2), fourier_type(D4, 2)
LAYERS: dict[str, Callable] = {
    "linear": lambda t: SteerableLinear(t, t),
    "norm": SteerableRMSNorm,
    "bilinear": BilinearFeedForward,
    "samples": FourierFeedForward,
    "gated": GatedFeedForward,
    "pooling": InvariantPooling,
    "attention": partial(SteerableSelfAttention, num_heads=1),
    "attention in discs": partial(SteerableSelfAttention, num_heads=1, neighborhood=Disc(1.5)),
    "distances": partial(SteerableSelfAttention, num_heads=1, position=DistanceBias),
    "radial": partial(SteerableSelfAttention, num_heads=1, position=RadialBias),
    "without position": partial(SteerableSelfAttention, num_heads=1, position=NoPosition),
    "query and key": partial(SteerableSelfAttention, num_heads=1, position=QueryKeyRotaryEmbedding),
    "block": partial(steerable_block, num_heads=1, dropout=0.1, drop_path=0.1),
}
MODULES: dict[str, Callable[[], nn.Module]] = {
    **{f"{name} of {t.fibergroup}": partial(make, t) for t in (SPECTRAL, REGULAR) for name, make in LAYERS.items()},
    "nonlinearity": lambda: FourierGELU(SPECTRAL),
    "batch norm": lambda: SteerableBatchNorm(SPECTRAL),
    "group attention": lambda: GroupSelfAttention(REGULAR, num_heads=1),
    "lifting": lambda: LiftingSelfAttention(field_type(D4, scalars=2), REGULAR, num_heads=1),
    "network": lambda: small_model("SO2", SteerableTransformer),
    "finite network": lambda: small_model("D4", SteerableTransformer),
}
DTYPES = [torch.bfloat16, torch.float16]


def output(module: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(2, module.in_type.size, 9, 9, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    out = module(module.in_type(x))
    out = out.tensor if isinstance(out, GeometricTensor) else out
    out.float().square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    return out


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("autocast", DTYPES)
def test_near_the_result_in_full_precision(name, autocast):
    module = randomize(MODULES[name]()).eval()
    expected = output(module, torch.float32)
    for dtype in (torch.float32, autocast):
        with torch.autocast("cpu", autocast):
            found = output(module, dtype)
        assert relative(found.float(), expected) < 0.1
    assert all(parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("name", MODULES)
def test_double_precision_is_left_alone(name):
    """As torch leaves it."""
    module = randomize(MODULES[name]().double()).eval()
    if "network" in name or "lifting" in name or name == "group attention":
        pytest.skip("escnn's and torch's own maps are")
    expected = output(module, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(output(module, torch.float64), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_dtypes_are_the_same_for_all_types(name):
    with torch.autocast("cpu", torch.bfloat16):
        assert len({output(LAYERS[name](t), torch.float32).dtype for t in (SPECTRAL, REGULAR)}) == 1


@pytest.mark.parametrize("group", ["SO2", "D4"])
@pytest.mark.parametrize("neighborhood", [None, Disc(1.5)])
@pytest.mark.parametrize("position", [*POSITIONS, "cross"])
def test_fused_attention_runs_in_half_precision(group, position, neighborhood, monkeypatch):
    """One operand in float32 would send all to a slow kernel."""
    seen, fused = [], F.scaled_dot_product_attention

    def recorded(*operands, attn_mask=None, **options):
        seen.extend(x.dtype for x in (*operands, attn_mask) if x is not None and x.dtype != torch.bool)
        return fused(*operands, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    t = SPECTRAL if group == "SO2" else REGULAR
    x = t(torch.randn(1, t.size, 9, 9))
    with torch.autocast("cpu", torch.bfloat16):
        if position == "cross":
            SteerableCrossAttention(t, t, num_heads=1, neighborhood=neighborhood)(x, x)
        else:
            SteerableSelfAttention(t, num_heads=1, position=POSITIONS[position], neighborhood=neighborhood)(x)
    wide = position == "distance" and neighborhood is None  # which needs the digits
    assert set(seen) == {torch.float32 if wide else torch.bfloat16}


@pytest.mark.parametrize("name", [name for name in MODULES if "network" not in name])
@pytest.mark.parametrize("shape", [(0,), (0, 5, 5), (2, 0, 0)], ids=["no points", "no images", "no pixels"])
def test_nothing_in_nothing_out(name, shape):
    module = MODULES[name]()
    x = torch.randn(shape[0], module.in_type.size, *shape[1:], requires_grad=True)
    module(module.in_type(x, torch.zeros(0, 2) if x.dim() == 2 else None)).tensor.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_heads_in_half_precision_are_padded_to_multiples_of_eight(dtype, monkeypatch):
    """Where kernels ask for it; the result is the same."""
    t = fourier_type(SO2, 5, 3)
    module, x = randomize(SteerableSelfAttention(t, num_heads=1)), t(torch.randn(1, t.size, 9, 9))
    widths, fused = set(), F.scaled_dot_product_attention

    def recorded(q, k, v, **options):
        widths.update(part.shape[-1] for part in (q, k, v))
        return fused(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected = module(x).tensor
        assert any(width % 8 for width in widths)
        widths.clear()
        monkeypatch.setattr("escnn_attn.functional.attention.ALIGNED_DEVICES", ("cpu",))
        found = module(x).tensor
        found.sum().backward()
    assert all(width % 8 == 0 for width in widths) == (dtype == torch.bfloat16)
    assert relative(found, expected) < (1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_waves_of_group_attention_keep_their_digits_in_half_precision():
    """Far from the center a rounded wave vector would be another phase."""
    module = GroupSelfAttention(fourier_type(planar_gspace("C8"), 4), num_heads=2)
    expected = module.waves.value.clone()
    half = copy.deepcopy(module).bfloat16()
    assert torch.equal(half.waves.like(torch.zeros(1)), expected)
