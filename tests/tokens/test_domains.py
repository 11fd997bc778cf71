"""What attention takes: clouds, masks, and what it refuses."""

import gc
import weakref
from functools import partial

import pytest
import torch
from escnn.gspaces import no_base_space
from escnn.nn import FieldType

from escnn_attn import (
    Clouds,
    Disc,
    DistanceBias,
    Grid,
    GroupSelfAttention,
    KNearest,
    RadialBias,
    RotaryEmbedding,
    SteerableCrossAttention,
    SteerableSelfAttention,
    fourier_type,
    planar_gspace,
)
from escnn_attn.tokens import Tokens, grid_of
from escnn_attn.tokens.grid import OpenGrid
from tests.helpers import POSITIONS, attention_on, cloud, mixed_type, pixels_of, relative


@pytest.mark.parametrize("name", ["C3", "SO2"])
def test_clouds_of_unequal_sizes_do_not_see_each_other(name):
    module = attention_on(name, position=partial(RotaryEmbedding, max_distance=8.0))
    x = cloud(module.in_type, points=11)
    batch = torch.tensor([1, 0, 1, 1, 3, 0, 1, 3, 1, 0, 3])
    out = module(x, batch=batch, batch_size=5).tensor
    for b in (0, 1, 3):
        alone = module(module.in_type(x.tensor[batch == b], x.coords[batch == b])).tensor
        assert relative(out[batch == b], alone) < 1e-12


@pytest.mark.parametrize("position", POSITIONS)
def test_masked_tokens_change_nothing_whatever_they_hold(position):
    module = attention_on("C3", position=POSITIONS[position])
    t = module.in_type
    x = torch.randn(3, t.size, 3, 4, dtype=torch.float64)
    mask = torch.ones(3, 3, 4, dtype=torch.bool)
    mask[0, 1:] = False
    mask[2] = False
    poisoned = x.masked_fill(~mask[:, None], float("nan"))
    out, other = module(t(x), mask=mask).tensor, module(t(poisoned), mask=mask).tensor
    assert torch.equal(out, other)
    assert out.masked_select(~mask[:, None].expand_as(out)).abs().max() == 0
    assert relative(out[1], module(t(x[1:2])).tensor[0]) < 1e-12


def test_dropout_drops_whole_fields():
    t = mixed_type("D4")
    module = SteerableSelfAttention(t, num_heads=1, head_channels=2, dropout=0.5)
    out = module(t(torch.randn(1, t.size, 6, 6))).tensor
    dropped = 0
    for start, end in zip(t.fields_start.astype(int), t.fields_end.astype(int)):
        zero = (out[0, start:end] == 0).all(0)
        assert torch.equal(zero, (out[0, start:end] == 0).any(0))
        dropped += zero.double().mean() / len(t)
    assert 0.4 < dropped < 0.6
    assert (module.eval()(t(torch.randn(1, t.size, 6, 6))).tensor != 0).all()


def test_grid_positions_agree_with_escnn():
    """(x, y) with y up: the first pixel is top left."""
    corners = pixels_of(3, 5)[[0, 4, -1]]
    assert corners.tolist() == [[-2, 1], [2, 1], [2, -1]]


@pytest.mark.parametrize("shape", [(7, 7), (3, 8)])
def test_a_grid_is_the_cloud_of_its_pixels(shape):
    module = attention_on("SO2", position=partial(RotaryEmbedding, tolerance=1e-12))
    x = torch.randn(1, module.in_type.size, *shape, dtype=torch.float64)
    points = module.in_type(x.flatten(2)[0].T.contiguous(), pixels_of(*shape))
    assert relative(module(points).tensor, module(module.in_type(x)).tensor.flatten(2)[0].T) < 1e-12


@pytest.mark.parametrize("near", [None, Disc(2.0), KNearest(3)])
@pytest.mark.parametrize("position", POSITIONS)
def test_points_may_come_in_any_order(near, position):
    module = attention_on("O2", neighborhood=near, position=POSITIONS[position])
    x, order = cloud(module.in_type), torch.randperm(23)
    batch = torch.arange(23) % 3
    shuffled = module(module.in_type(x.tensor[order], x.coords[order]), batch=batch[order]).tensor
    assert relative(shuffled, module(x, batch=batch).tensor[order]) < 1e-10


@pytest.mark.parametrize("near", [None, Disc(2.0), KNearest(3)])
@pytest.mark.parametrize("layer", ["self", "cross", "group"])
def test_empty_and_single_inputs(near, layer):
    """No samples, no pixels, no points, no context: shapes are kept and nothing is NaN."""
    t = fourier_type(planar_gspace("C4"), 2)
    kind = {"self": SteerableSelfAttention, "cross": SteerableCrossAttention, "group": GroupSelfAttention}[layer]
    module = kind(*(t, t) if layer == "cross" else (t,), num_heads=1, neighborhood=near)
    fields = [t(torch.randn(b, 8, n, n)) for b, n in ((0, 4), (1, 0), (2, 1), (0, 0))]
    for x in [*fields, *(t(torch.randn(n, 8), torch.randn(n, 2)) for n in (0, 1))]:
        out = module(x, x) if layer == "cross" else module(x)
        assert out.shape == x.shape
        assert out.tensor.isfinite().all()
    if layer == "cross":
        points, nothing = t(torch.randn(3, 8), torch.randn(3, 2)), t(torch.randn(0, 8), torch.randn(0, 2))
        assert module(points, nothing).tensor.abs().max() == 0
        assert module(nothing, points).shape == (0, 8)


def test_no_points_at_all():
    module = attention_on("SO2")
    nothing = module.in_type(torch.zeros(0, module.in_type.size).double(), torch.zeros(0, 2).double())
    assert module(nothing).tensor.shape == (0, module.out_type.size)
    assert module(nothing, batch=torch.zeros(0, dtype=torch.long), batch_size=3).tensor.shape == (0, module.out_type.size)
    with pytest.raises(ValueError, match="no batch to tell"):
        module(nothing, batch_size=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 0}, "heads must be at least 1"),
        ({"num_heads": 2, "head_channels": 3}, "even"),
        ({"num_heads": 2, "dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"num_heads": 2, "position": partial(RotaryEmbedding, wavelengths=(9.0, 3.0))}, "shortest <= longest"),
        ({"num_heads": 2, "position": partial(RotaryEmbedding, tolerance=0.0)}, "positive tolerance"),
        ({"num_heads": 2, "head_channels": 0}, "at least 2"),
        ({"num_heads": 2, "position": partial(DistanceBias, lengths=(0.0, 1.0))}, "positive lengths"),
        ({"num_heads": 2, "position": partial(RadialBias, extent=-1.0)}, "positive extent"),
        ({"num_heads": 2, "position": partial(RadialBias, centers=1)}, "centers must be at least 2"),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SteerableSelfAttention(mixed_type("SO2"), **options)


def test_wrong_inputs_are_refused():
    module = attention_on("C3")
    t = module.in_type
    other = fourier_type(planar_gspace("C3"), 2)
    with pytest.raises(TypeError, match="expected a geometric tensor of type"):
        module(other(torch.randn(1, 6, 3, 3)))
    with pytest.raises(TypeError, match="GeometricTensor"):
        module(torch.randn(1, t.size, 3, 3))
    with pytest.raises(ValueError, match="this tensor is a grid"):
        module(t(torch.randn(1, t.size, 3, 3).double()), batch=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="23 int64 indices"):
        module(cloud(t), batch=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="batch_size is 1"):
        module(cloud(t), batch=torch.arange(23), batch_size=1)
    with pytest.raises(ValueError, match="indices from 0, got -1"):
        module(cloud(t), batch=torch.arange(23) - 1)
    with pytest.raises(ValueError, match="this grid has 1 samples"):
        module(t(torch.randn(1, t.size, 3, 3).double()), batch_size=2)
    with pytest.raises(TypeError, match=r"mask to be a torch\.Tensor, got list"):
        module(cloud(t), mask=[True] * 23)
    with pytest.raises(TypeError, match=r"edge_index to be a torch\.Tensor, got list"):
        module(cloud(t), edge_index=[[0], [1]])
    with pytest.raises(TypeError, match="PositionEmbedding class"):
        SteerableSelfAttention(t, num_heads=1, position=None)
    with pytest.raises(ValueError, match="detach the coords"):
        module(t(cloud(t).tensor, cloud(t).coords.requires_grad_()))
    with pytest.raises(ValueError, match="expected a mask of shape"):
        module(t(torch.randn(1, t.size, 3, 3).double()), mask=torch.ones(1, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="finite coords"):
        module(t(torch.randn(2, t.size).double(), torch.tensor([[0.0, float("nan")], [0.0, 1.0]])))
    pointless = no_base_space(t.fibergroup)
    with pytest.raises(TypeError, match="expected a field type on the plane"):
        SteerableSelfAttention(FieldType(pointless, [pointless.trivial_repr]), num_heads=1)
    with pytest.raises(TypeError, match="one gspace"):
        SteerableSelfAttention(t, mixed_type("D3"), num_heads=1)


def test_coords_of_another_shape_are_refused():
    for coords in (torch.randn(5, 3), torch.randn(5), torch.zeros(5, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"expected floating-point coords \(points, 2\)"):
            Clouds(coords)


@pytest.mark.parametrize("sides", [(1, 1), (4, 6), (13, 5), (99, 70)])
def test_an_open_grid_computes_the_constants_of_a_grid(sides):
    """Also at the rim of the disc, where rounding would tell."""
    options = {"spacing": 0.3, "batch_size": 2, "dtype": torch.float64}
    grid, found = Grid(*sides, **options), OpenGrid(*sides, **options)
    assert found.lattice is None
    assert torch.equal(found.positions, grid.positions)
    assert torch.allclose(found.window(torch.float64), grid.window(torch.float64), rtol=0, atol=1e-14)
    inside, disc = found.disc(), grid.disc()
    assert torch.equal(inside.mask, torch.zeros(2, grid.num_tokens, dtype=torch.bool).index_fill(1, disc.index, True))
    assert torch.equal(inside.positions[:, inside.mask[0]], disc.positions)
    assert inside.positions.norm(dim=-1).max() == disc.positions.norm(dim=-1).max()
    x = torch.randn(2, 3, *sides)
    assert torch.equal(inside.unpad(inside.pad(x)), x)


def test_a_disc_of_a_grid_and_back():
    grid = Grid(5, 7, mask=torch.ones(1, 5, 7, dtype=torch.bool))
    disc, x = grid.disc(), torch.randn(1, 3, 5, 7)
    assert disc.positions.norm(dim=-1).max() <= 2.5
    back = disc.unpad(disc.pad(x))
    assert torch.equal(back.bool(), (x * (grid.positions.norm(dim=-1) <= 2.5).view(5, 7)).bool())
    assert disc.mask.shape == (1, disc.num_tokens)


def test_tables_of_grids_are_kept_unless_tensors_are_temporary():
    made = []

    def make():
        made.append(1)
        return torch.zeros(1)

    for _ in range(2):
        Grid(3, 11).table("a table of this test", make)
    assert len(made) == 1
    torch.func.vmap(lambda x: Grid(3, 11).table("another table of this test", make) + x)(torch.zeros(2))
    Grid(3, 11).table("another table of this test", make)
    assert len(made) == 3


@pytest.mark.parametrize("near", [None, Disc(1.5), KNearest(3)])
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_what_a_call_caches_is_freed_with_it(near, domain):
    """Without the garbage collector: no cached pattern or encoding refers to its domain."""
    module = attention_on("O2", neighborhood=near)
    x = torch.randn(1, module.in_type.size, 9, 9).double()
    tokens = (
        Tokens.on(grid_of(x), x, module.in_layout) if domain == "grid" else Tokens.of(cloud(module.in_type), module.in_layout)
    )
    gc.collect()
    gc.disable()
    try:
        module.forward_tokens(tokens)
        reference = weakref.ref(tokens.domain)
        del tokens
        assert reference() is None
    finally:
        gc.enable()
