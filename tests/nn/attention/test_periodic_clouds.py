"""Attention on clouds in a periodic cell: that of the points repeated over the plane, each pair once, at its nearest."""

from functools import partial

import pytest
import torch
from escnn.nn import GeometricTensor

from escnn_attn import (
    Clouds,
    Disc,
    DistanceBias,
    GroupSelfAttention,
    InvariantPooling,
    KNearest,
    RotaryEmbedding,
    SteerableCrossAttention,
    SteerablePointTransformer,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.testing import lattice_elements, transform
from escnn_attn.tokens import Tokens, surrounded
from tests.helpers import POSITIONS, attention_on, pixels_of, randomize, relative

CELL = (8.0, 6.0)
NEAR = {"disc": Disc(2.0), "wide disc": Disc(2.9), "nearest": KNearest(5)}
EXACT = partial(RotaryEmbedding, tolerance=1e-12)


def points(module, count=40, cell=CELL, of="in_type"):
    """Points anywhere in the cell that begins at the origin."""
    t = getattr(module, of)
    return t(torch.randn(count, t.size).double(), torch.rand(count, 2).double() * torch.tensor(cell))


def repeated(module, x, cell=CELL, **options):
    """The layer on 3 × 3 copies of a cloud, in the copy in the middle."""
    steps = torch.tensor([-1.0, 0.0, 1.0]).double()
    shifts = torch.cartesian_prod(steps, steps) * torch.tensor(cell)
    coords = (x.coords[None] + shifts[:, None]).flatten(0, 1)
    tiled = {name: part.repeat(9) if isinstance(part, torch.Tensor) else part for name, part in options.items()}
    out = module(GeometricTensor(x.tensor.repeat(9, 1), x.type, coords), **tiled).tensor
    return out.unflatten(0, (9, -1))[4]


def moved(x, coords):
    return GeometricTensor(x.tensor, x.type, coords)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("near", NEAR)
def test_attention_is_that_of_the_points_repeated(near, position):
    module = attention_on("C3", neighborhood=NEAR[near], position=POSITIONS[position])
    x = points(module)
    with torch.no_grad():
        out = module(x, cell=CELL)
        assert relative(out.tensor, repeated(module, x)) < 1e-12
        assert out.coords is x.coords
        assert relative(out.tensor, module(x).tensor) > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_clouds_of_a_batch_with_padding_and_weights(weighted):
    """Of unequal sizes, so that they have unequal numbers of images; one of them is empty, and one a single point."""
    module = attention_on("SO2", neighborhood=Disc(2.5), position=EXACT)
    x, batch = points(module), torch.tensor([0, 2, 4, 0] * 9 + [0, 0, 0, 3])
    mask, weights = torch.rand(40) > 0.2, torch.rand(40).double() if weighted else None
    features, coords = x.tensor.masked_fill(~mask[:, None], torch.nan), x.coords.masked_fill(~mask[:, None], torch.nan)
    options = {"batch": batch, "batch_size": 6, "mask": mask, "quadrature_weights": weights}
    with torch.no_grad():
        out = module(module.in_type(features, coords), cell=CELL, **options).tensor
        assert relative(out, repeated(module, x, **options)) < 1e-12
    assert out[~mask].abs().max() == 0


def test_clouds_of_very_different_sizes():
    """They are taken apart by size, and each part has the cell."""
    module = attention_on("C3", neighborhood=Disc(1.0), position=POSITIONS["none"])
    counts = [3000, *[20] * 60]
    batch = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = points(module, len(batch), (20.0, 20.0))
    with torch.no_grad():
        out = module(x, batch=batch, cell=(20.0, 20.0)).tensor
        for b in (0, 5):
            one = module.in_type(x.tensor[batch == b], x.coords[batch == b])
            assert relative(out[batch == b], module(one, cell=(20.0, 20.0)).tensor) < 1e-12


@pytest.mark.parametrize("name", ["C4", "D4", "SO2", "O2"])
@pytest.mark.parametrize("near", ["disc", "nearest"])
def test_shifts_turns_and_flips_are_exact(name, near):
    module, cell = attention_on(name, neighborhood=NEAR[near]), (6.0, 6.0)
    x = points(module, cell=cell)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        module, x = module.to(dtype), GeometricTensor(x.tensor.to(dtype), x.type, x.coords.to(dtype))
        with torch.no_grad():
            out = module(x, cell=cell)
            for g in lattice_elements(module.in_type.gspace):
                turned, laps = transform(x, g), torch.randint(-2, 3, x.coords.shape)
                turned = moved(turned, turned.coords + torch.tensor([1.3, -2.9], dtype=dtype) + laps * 6)
                assert relative(module(turned, cell=cell).tensor, transform(out, g).tensor) < bound


def test_a_quarter_turn_of_an_oblong_cell_exchanges_its_sides():
    module = attention_on("C4", neighborhood=Disc(2.5))
    x, quarter = points(module), module.in_type.fibergroup.element(1)
    with torch.no_grad():
        turned = module(transform(x, quarter), cell=CELL[::-1]).tensor
        assert relative(turned, transform(module(x, cell=CELL), quarter).tensor) < 1e-12


@pytest.mark.parametrize("near", NEAR)
def test_a_periodic_grid_is_the_cloud_of_its_pixels(near):
    module = attention_on("O2", neighborhood=NEAR[near], position=EXACT)
    grid = module.in_type(torch.randn(1, module.in_type.size, 6, 8).double())
    cloud = module.in_type(grid.tensor[0].flatten(1).T.contiguous(), pixels_of(6, 8))
    with torch.no_grad():
        on_grid, on_cloud = module(grid, periodic=True).tensor, module(cloud, cell=CELL).tensor
    assert relative(on_grid[0].flatten(1).T, on_cloud) < 1e-12


def test_group_attention_and_whole_networks():
    t = fourier_type(planar_gspace("C4"), 2)
    module = randomize(GroupSelfAttention(t, num_heads=1, neighborhood=Disc(2.0)).double())
    x = points(module)
    assert relative(module(x, cell=CELL).tensor, repeated(module, x)) < 1e-12
    block = partial(steerable_block, num_heads=1, neighborhood=Disc(1.0))
    network = randomize(SteerablePointTransformer("C4", out_fields={"vectors": 1}, channels=2, depth=2, block=block).double())
    x = points(network)
    assert relative(network(x, cell=CELL).tensor, repeated(network, x)) < 1e-10
    pool = InvariantPooling(t).double()
    x = points(pool)
    assert torch.equal(pool(x, cell=CELL).tensor, pool(x).tensor)


@pytest.mark.parametrize("near", [Disc(2.5), KNearest(4)])
def test_cross_attention_in_one_cell(near):
    """Points to points, and points to the pixels of a periodic grid, as to the cloud of its pixels."""
    t = fourier_type(planar_gspace("C4"), 2)
    module = randomize(SteerableCrossAttention(t, t, num_heads=1, neighborhood=near).double())
    x, grid = points(module), t(torch.randn(1, t.size, 6, 8).double())
    pixels = t(grid.tensor[0].flatten(1).T.contiguous(), pixels_of(6, 8) + torch.tensor([16.0, -6.0]))
    found = module(x, grid, periodic=True, cell=CELL).tensor
    assert relative(found, module(x, pixels, cell=CELL).tensor) < 1e-12
    back = module(grid, x, periodic=True, cell=CELL).tensor
    assert relative(back[0].flatten(1).T, module(pixels, x, cell=CELL).tensor) < 1e-12
    same = randomize(SteerableCrossAttention(t, t, num_heads=1, neighborhood=near).double())
    assert relative(same(x, x, cell=CELL).tensor, repeated(lambda y, **_: same(y, y), x)) < 1e-12


def test_gradients_of_positions():
    """Forces cross the border: those of the points repeated, in which each pair is seen from nine places."""
    module = attention_on("C3", neighborhood=Disc(2.0), position=DistanceBias)
    x, weight = points(module), torch.randn(40, module.out_type.size).double()

    def energy(coords):
        return (module(moved(x, coords), cell=CELL).tensor * weight).sum()

    coords = (x.coords + torch.tensor([80.0, -60.0])).requires_grad_()
    (force,) = torch.autograd.grad(energy(coords), coords)
    step = 1e-6 * torch.randn_like(coords)
    difference = energy(coords + step) - energy(coords - step)
    assert torch.isclose(difference, 2 * (force * step).sum(), rtol=1e-5)
    leaf = x.coords.clone().requires_grad_()
    (expected,) = torch.autograd.grad((repeated(module, moved(x, leaf)) * weight).sum(), leaf)
    assert relative(force, expected) < 1e-10


@pytest.mark.parametrize("near", [Disc(1.5), Disc(2.9)])
def test_samples_are_vectorized(near):
    """Where numbers of images cannot be read, all of them are kept."""
    module = attention_on("C3", neighborhood=near, position=DistanceBias)
    features, coords = torch.randn(3, 12, module.in_type.size).double(), 8 * torch.rand(3, 12, 2).double()

    def run(features, coords):
        tokens = Tokens.on(Clouds(coords, cell=CELL), features, module.in_layout)
        return module(tokens).features[1]

    one_by_one = torch.stack([run(*sample) for sample in zip(features, coords)])
    assert relative(torch.func.vmap(run)(features, coords), one_by_one) < 1e-12


def test_images_are_those_near_the_cell():
    """As many as the margin has room for, and none without need."""
    clouds = Clouds(100 * torch.rand(5000, 2).double(), cell=(10.0, 20.0))
    assert (clouds.positions.abs() <= torch.tensor([5.0, 10.0]) + 1e-12).all()
    around, index = surrounded(clouds, 1.0)
    assert around.cell is None
    assert abs(around.num_tokens / 5000 - (12 * 22) / (10 * 20)) < 0.02
    assert index.shape == (1, around.num_tokens)
    away = (around.positions - clouds.positions[:, index[0]]) / torch.tensor([10.0, 20.0])
    assert (away - away.round()).abs().max() < 1e-12
    assert away[:, :5000].abs().max() == 0


@pytest.mark.parametrize("near", [KNearest(50), Disc(2.9)])
def test_a_token_does_not_see_its_own_images(near):
    """Of more neighbors than there are points, those nearer than half of the cell, each once; and a cell without points."""
    module = attention_on("C3", neighborhood=near)
    alone = points(module, 1)
    assert (module.attention_weights(alone, cell=CELL) == 1).all()
    x = points(module, 30)
    gaps = x.coords[:, None] - x.coords
    gaps = gaps - torch.tensor(CELL) * (gaps / torch.tensor(CELL)).round()
    seen = gaps.norm(dim=-1) < (3.0 if isinstance(near, KNearest) else 2.9)
    assert torch.equal(module.attention_weights(x, cell=CELL)[0, 0] > 0, seen)
    assert module(points(module, 0), cell=CELL).tensor.shape == (0, module.out_type.size)


def test_what_has_no_meaning_in_a_cell_is_refused():
    module = attention_on("C3", neighborhood=Disc(3.0))
    x = points(module)
    with pytest.raises(ValueError, match=r"radius must be less than half of the periodic cell.*expected less than 3, got 3"):
        module(x, cell=CELL)
    with pytest.raises(ValueError, match="edge_index does not say which image of a point"):
        module(x, cell=CELL, edge_index=torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"this tensor has coords: give the cell=\(width, height\) that repeats"):
        module(x, periodic=True)
    for cell, kind in (((1.0,), ValueError), ((0.0, 1.0), ValueError), (8.0, TypeError), (("a", "b"), TypeError)):
        with pytest.raises(kind, match="cell"):
            module(x, cell=cell)
    t = fourier_type(planar_gspace("C4"), 2)
    cross = SteerableCrossAttention(t, t, num_heads=1, neighborhood=Disc(1.0)).double()
    for periodic in (True, False):
        with pytest.raises(ValueError, match="expected queries and keys in one periodic cell, or none in any"):
            cross(points(cross), t(torch.randn(1, t.size, 6, 9).double()), cell=CELL, periodic=periodic)
