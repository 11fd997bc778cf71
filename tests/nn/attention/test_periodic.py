"""Attention on periodic grids: exact under cyclic shifts too, and that of the field repeated over the plane."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.export import Dim, export

from escnn_attn import (
    Disc,
    Grid,
    GroupSelfAttention,
    KNearest,
    LiftingSelfAttention,
    Neighborhood,
    NoPosition,
    QueryKeyRotaryEmbedding,
    RotaryEmbedding,
    SequentialModule,
    SteerableCrossAttention,
    SteerableLinear,
    SteerableSelfAttention,
    SteerableStack,
    field_type,
    fourier_type,
    planar_gspace,
)
from escnn_attn.nn.neighborhood._discs import WideDiscs
from escnn_attn.nn.neighborhood._tiles import Tiles
from escnn_attn.testing import lattice_elements, transform
from escnn_attn.tokens import Tokens, grid_of, surrounded
from tests.helpers import POSITIONS, assert_every_parameter_has_gradient, attention_on, randomize, relative

ROTARY = {
    "rotary": partial(RotaryEmbedding, tolerance=1e-12),
    "query-key rotary": partial(QueryKeyRotaryEmbedding, tolerance=1e-12),
}


class Ring(Neighborhood):
    """Keys at distances about 2."""

    def pairs(self, query, key, slack):
        distance = np.linalg.norm(key[:, None] - query[None], axis=-1)
        return np.stack(np.nonzero((distance > 1.5 - slack) & (distance < 2.5 + slack)))


NEAR = {"disc": Disc(2.0), "wide disc": Disc(2.9), "nearest": KNearest(9), "ring": Ring()}


def field(module, height=6, width=7, of="in_type"):
    t = getattr(module, of)
    return t(torch.randn(2, t.size, height, width, dtype=torch.float64))


def repeated(module, *fields, **parts):
    """The layer on 3 × 3 copies of fields, with a border, in the copy in the middle."""
    height, width = fields[0].tensor.shape[2:]
    tiled = {name: part.repeat(1, 3, 3) if isinstance(part, torch.Tensor) else part for name, part in parts.items()}
    out = module(*(type(x)(x.tensor.repeat(1, 1, 3, 3), x.type) for x in fields), **tiled).tensor
    return out[:, :, height : 2 * height, width : 2 * width]


@pytest.mark.parametrize(
    ("name", "position", "near"),
    [
        *(("C3", p, near) for p in POSITIONS for near in ("disc", "nearest")),
        *(("O2", p, near) for p in ROTARY for near in NEAR),
    ],
)
def test_attention_is_that_of_the_field_repeated(near, position, name):
    module = attention_on(name, neighborhood=NEAR[near], position={**POSITIONS, **ROTARY}[position])
    x = field(module)
    with torch.no_grad():
        assert relative(module(x, periodic=True).tensor, repeated(module, x)) < 1e-12


@pytest.mark.parametrize("near", ["disc", "wide disc", "ring"])
def test_padding_and_weights_are_repeated_too(near):
    module = attention_on("D4", neighborhood=NEAR[near])
    x, mask, weights = field(module), torch.rand(2, 6, 7) > 0.4, torch.rand(2, 6, 7)
    mask[1] = False
    mask[1, 0, 0] = True  # a token that sees no other
    poisoned = module.in_type(x.tensor.masked_fill(~mask[:, None], torch.nan).requires_grad_())
    out = module(poisoned, periodic=True, mask=mask, quadrature_weights=weights).tensor
    out.sum().backward()
    assert poisoned.tensor.grad.isfinite().all()
    assert relative(out, repeated(module, x, mask=mask, quadrature_weights=weights)) < 1e-12
    assert out.masked_select(~mask[:, None].expand_as(out)).abs().max() == 0


@pytest.mark.parametrize("name", ["C4", "D4", "SO2", "O2"])
@pytest.mark.parametrize(("side", "near"), [(7, "nearest"), (8, "disc")])
def test_shifts_turns_and_flips_are_exact(name, side, near):
    module = attention_on(name, neighborhood=NEAR[near])
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        module, x = module.to(dtype), field(module, side, side)
        x = module.in_type(x.tensor.to(dtype))
        with torch.no_grad():
            out = module(x, periodic=True)
            for g, shift in zip(lattice_elements(module.in_type.gspace), [(1, 0), (0, 3), (5, 2), (-1, 4)] * 2):
                moved = module.in_type(transform(x, g).tensor.roll(shift, (2, 3)))
                assert relative(module(moved, periodic=True).tensor, transform(out, g).tensor.roll(shift, (2, 3))) < bound


@pytest.mark.parametrize(("radius", "shape"), [(0.5, (9, 9)), (4.0, (9, 9)), (1.0, (30, 11)), (2.3, (30, 11))])
def test_gradients_are_those_of_the_field_repeated(radius, shape):
    """Tiles in several bands and masks over all pixels: features and parameters get the gradients of the twin."""
    module = attention_on("SO2", position=ROTARY["rotary"], neighborhood=Disc(radius))
    x, gradients = field(module, *shape), []
    for run in (lambda x: module(x, periodic=True).tensor, lambda x: repeated(module, x)):
        module.zero_grad()
        leaf = module.in_type(x.tensor.clone().requires_grad_())
        out = run(leaf)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        assert_every_parameter_has_gradient(module)
        gradients.append([leaf.tensor.grad, *(p.grad for p in module.parameters())])
    assert all(relative(a, b) < 1e-10 for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("lifting", [False, True])
def test_group_attention_is_that_of_the_field_repeated(lifting):
    t = fourier_type(planar_gspace("D4"), 2)
    scalars = field_type(t.gspace, scalars=2)
    module = LiftingSelfAttention(scalars, t, num_heads=1) if lifting else GroupSelfAttention(t, num_heads=1)
    module, x = randomize(module.double()), field(module, 5, 6)
    for module.neighborhood in (Disc(1.5), KNearest(5)):
        assert relative(module(x, periodic=True).tensor, repeated(module, x)) < 1e-12


@pytest.mark.parametrize("near", [Disc(2.9), KNearest(4)])
@pytest.mark.parametrize("sides", [(3, 4), (6, 8), (12, 16)])
def test_cross_attention_between_resolutions_of_one_cell(near, sides):
    t = fourier_type(planar_gspace("C4"), 2)
    module = randomize(SteerableCrossAttention(t, t, num_heads=1, neighborhood=near).double())
    x, context = field(module), field(module, *sides, of="context_type")
    x = module.in_type(x.tensor[..., [*range(7), 0]])
    spaced = {"context_spacing": 6 / sides[0]}
    assert relative(module(x, context, periodic=True, **spaced).tensor, repeated(module, x, context, **spaced)) < 1e-12


def test_grids_are_tiled():
    """Tiles with real tokens in their halo, for small discs and for aligned grids of two sizes; masks for wide discs."""
    grid = Grid(32, 32, periodic=True)
    around = {radius: surrounded(grid, Disc(radius).reach(*grid.cell)).domain for radius in (1.0, 3.0, 15.0)}
    assert {type(Disc(radius).pattern(grid, key)) for radius, key in around.items()} == {Tiles}
    assert isinstance(Disc(15.0).pattern(Grid(32, 32), Grid(32, 32)), WideDiscs)
    assert isinstance(Disc(2.0).pattern(Grid(32, 32), Grid(38, 38)), Tiles)
    assert not isinstance(Disc(2.0).pattern(Grid(32, 32), Grid(38, 39)), Tiles)


@pytest.mark.parametrize(("radius", "more"), [(1.0, 6), (3.0, 2), (2.0, 4), (2.0, 0)])
def test_tiles_of_aligned_grids_are_the_graph_between_them(radius, more):
    """A context with a rim that is wider or narrower than a disc: equal to the same with clouds of pixels."""
    t = fourier_type(planar_gspace("C4"), 2)
    module = randomize(SteerableCrossAttention(t, t, num_heads=1, neighborhood=Disc(radius)).double())
    x, context = field(module, 25, 24), field(module, 25 + more, 24 + more, of="context_type")
    mask = torch.rand(2, 25 + more, 24 + more) > 0.8
    tiles = module(x, context, context_mask=mask).tensor

    def as_points(y):
        pixels = Grid(*y.tensor.shape[2:], dtype=torch.float64).positions[0]
        return t(y.tensor[0].flatten(1).T.contiguous(), pixels)

    points = module(as_points(x), as_points(context), context_mask=mask[0].flatten()).tensor
    assert relative(tiles[0].flatten(1).T, points) < 1e-12


def test_every_pixel_sees_as_many():
    module = attention_on("SO2", neighborhood=Disc(2.0))
    weights = module.attention_weights(field(module), periodic=True)
    assert weights.shape[2:] == (42, 42)
    assert ((weights > 0).sum(-1) == 13).all()
    assert (weights.sum(-1) - 1).abs().max() < 1e-12
    assert weights[0, 0].view(6, 7, 6, 7)[0, 0, 5, 6] > 0  # the opposite corner


def test_chains_and_stacks_pass_it_on():
    t = fourier_type(planar_gspace("C4"), 4)
    layers = [SteerableLinear(t, t), SteerableSelfAttention(t, num_heads=1, neighborhood=Disc(2.0))]
    x = t(torch.randn(2, t.size, 6, 7))
    expected = layers[1](layers[0](x), periodic=True).tensor
    assert relative(layers[1](layers[0](x)).tensor, expected) > 0.1
    for chain in (SequentialModule(*layers), SteerableStack(layers)):
        assert relative(chain(x, periodic=True).tensor, expected) < 1e-5
        assert relative(chain(x, periodic=False).tensor, layers[1](layers[0](x)).tensor) < 1e-5


def test_attention_without_positions_may_be_global():
    module = attention_on("C4", position=NoPosition)
    x = field(module)
    assert torch.equal(module(x, periodic=True).tensor, module(x).tensor)


class Periodic(torch.nn.Module):
    """A layer on plain periodic grids, as networks call it."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.layout = layer, layer.in_layout

    def forward(self, x):
        return torch.cat([f.flatten() for f in self.layer(Tokens.on(grid_of(x, periodic=True), x, self.layout)).features])


@pytest.mark.slow
@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_a_fixed_size_is_exported_and_compiled_for_any_batch(radius):
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    module = Periodic(SteerableSelfAttention(t, num_heads=1, neighborhood=Disc(radius)))
    x, other = torch.randn(2, t.size, 12, 13), torch.randn(3, t.size, 12, 13)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert relative(compiled(x), module(x)) < 1e-5
    program = export(module, (x,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False).module()
    assert relative(program(other), module(other)) < 1e-5


def saved(module, x) -> int:
    """How many numbers are kept for the gradient."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        module(x, periodic=True)
    return sum(sizes)


def test_memory_is_linear():
    t = fourier_type(planar_gspace("SO2"), 2, 1)
    module = SteerableSelfAttention(t, num_heads=1, neighborhood=Disc(2.0))
    small, large = (saved(module, t(torch.randn(1, t.size, side, side))) for side in (24, 48))
    assert large < 4 * small
