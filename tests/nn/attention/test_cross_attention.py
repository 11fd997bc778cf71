"""Cross-attention: between types, resolutions and domains."""

from functools import partial

import pytest
import torch
from escnn.nn import FieldType

from escnn_attn import (
    Disc,
    KNearest,
    NoPosition,
    RotaryEmbedding,
    SteerableCrossAttention,
    SteerableSelfAttention,
    Tokens,
    planar_gspace,
)
from escnn_attn.testing import equivariance_error, transform
from escnn_attn.tokens import Grid, grid_of
from tests.helpers import (
    POSITIONS,
    assert_every_parameter_has_gradient,
    cloud,
    mixed_type,
    pixels_of,
    randomize,
    relative,
    worst,
)

EXACT = partial(RotaryEmbedding, tolerance=1e-12)


def cross(name="C3", **options):
    """Attention of mixed fields to scalars and one irrep, on another domain."""
    gspace = planar_gspace(name)
    context = FieldType(gspace, [gspace.trivial_repr] * 2 + [mixed_type(name).representations[0]])
    return randomize(SteerableCrossAttention(mixed_type(name), context, num_heads=2, head_channels=4, **options).double())


@pytest.mark.parametrize("near", [None, Disc(2.5), KNearest(4)])
@pytest.mark.parametrize("position", POSITIONS)
def test_attention_to_itself_is_self_attention(near, position):
    t = mixed_type("D4")
    twin = SteerableSelfAttention(t, num_heads=2, position=POSITIONS[position], neighborhood=near).double()
    module = SteerableCrossAttention(t, t, num_heads=2, position=POSITIONS[position], neighborhood=near).double()
    state = twin.state_dict()
    for name in [n for n in state if n.startswith("project_in")]:
        irrep = twin.project_in.plan.pairs[int(name.split(".")[-1])][1] if "weights" in name else 0
        parts = state.pop(name).unflatten(-1, (twin.heads.function.multiplicities[irrep], 3, -1))
        state[name.replace("project_in", "project_query")] = parts[..., 0, :].flatten(-2)
        state[name.replace("project_in", "project_context")] = parts[..., 1:, :].flatten(-3)
    module.load_state_dict(state)
    for x in (cloud(t), t(torch.randn(2, t.size, 5, 6, dtype=torch.float64))):
        assert relative(module(x, x).tensor, twin(x).tensor) < 1e-12


@pytest.mark.parametrize("near", [None, Disc(2.5), KNearest(4)])
@pytest.mark.parametrize("x_is", ["grid", "points"])
@pytest.mark.parametrize("context_is", ["grid", "points"])
@pytest.mark.parametrize("name", ["C3", "SO2"])
def test_grids_are_the_clouds_of_their_pixels(near, x_is, context_is, name):
    """Of other resolutions too, each in the units of the other."""
    module = cross(name, neighborhood=near, position=EXACT)
    x = torch.randn(1, module.in_type.size, 3, 4, dtype=torch.float64)
    around = torch.randn(1, module.context_type.size, 7, 6, dtype=torch.float64)
    as_points = [
        t(f.flatten(2)[0].T.contiguous(), spacing * pixels_of(*f.shape[2:]))
        for t, f, spacing in ((module.in_type, x, 2.0), (module.context_type, around, 0.8))
    ]
    expected = module(*as_points).tensor
    mixed = (
        module.in_type(x) if x_is == "grid" else as_points[0],
        module.context_type(around) if context_is == "grid" else as_points[1],
    )
    spacings = {"spacing": 2.0 if x_is == "grid" else 1.0, "context_spacing": 0.8 if context_is == "grid" else 1.0}
    out = module(*mixed, **spacings).tensor
    assert relative(out[0].flatten(1).T if x_is == "grid" else out, expected) < 1e-10
    if x_is == context_is == "grid":  # the same module and shapes at another spacing
        doubled = [t.type(t.tensor, 2 * t.coords) for t in as_points]
        out = module(*mixed, spacing=4.0, context_spacing=1.6).tensor
        assert relative(out[0].flatten(1).T, module(*doubled).tensor) < 1e-10


@pytest.mark.parametrize("name", ["C3", "D4", "O2"])
def test_clouds_move_together(name, rng):
    module = cross(name, position=EXACT)
    x, around = cloud(module.in_type), cloud(module.context_type, points=11, seed=1)
    assert worst(equivariance_error(module, domain="points")) < 1e-10
    with torch.no_grad():
        out = module(x, around).tensor
        shift = torch.tensor([30.0, -7.0], dtype=torch.float64)
        shifted = [t.type(t.tensor, t.coords + shift) for t in (x, around)]
        assert relative(module(*shifted).tensor, out) < 1e-10
        assert relative(module(shifted[0], around).tensor, out) > 1e-2


def test_quarter_turns_of_two_grids():
    module = cross("D4")
    assert worst(equivariance_error(module, domain="grid")) < 1e-11


@pytest.mark.parametrize("near", [None, Disc(6.0), KNearest(3)])
def test_batches_padding_and_weights_of_the_context(near):
    module = cross("C3", neighborhood=near)
    x, around = cloud(module.in_type, points=12), cloud(module.context_type, points=20, seed=1)
    batch, context_batch = torch.arange(12) % 4, torch.arange(20) % 3
    mask = torch.arange(20) % 5 != 0
    poisoned = module.context_type(around.tensor.masked_fill(~mask[:, None], torch.nan), around.coords)
    weights = torch.rand(20, dtype=torch.float64)
    out = module(
        x, poisoned, batch=batch, context_batch=context_batch, context_mask=mask, context_quadrature_weights=weights
    ).tensor
    assert out[batch == 3].abs().max() == 0  # nothing to attend to
    for b in range(3):
        member, context = batch == b, (context_batch == b) & mask
        alone = module(
            module.in_type(x.tensor[member], x.coords[member]),
            module.context_type(around.tensor[context], around.coords[context]),
            context_quadrature_weights=weights[context],
        ).tensor
        assert relative(out[member], alone) < 1e-12


def test_points_attend_to_an_image_each():
    module = cross("SO2", position=EXACT)
    x = cloud(module.in_type, points=9)
    images = module.context_type(torch.randn(2, module.context_type.size, 7, 7, dtype=torch.float64))
    batch = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])
    out = module(x, images, batch=batch).tensor
    for b in (0, 1):
        alone = module(
            module.in_type(x.tensor[batch == b], x.coords[batch == b]), module.context_type(images.tensor[b : b + 1])
        ).tensor
        assert relative(out[batch == b], alone) < 1e-10


def test_a_graph_between_clouds():
    module = cross("O2", position=EXACT)
    x, around = cloud(module.in_type), cloud(module.context_type, points=11, seed=1)
    query, key = (torch.cdist(x.coords, around.coords) <= 2.0).nonzero().T
    along = module(x, around, edge_index=torch.stack([key, query])).tensor
    module.neighborhood = Disc(2.0)
    assert relative(along, module(x, around).tensor) < 1e-12
    with pytest.raises(ValueError, match=r"from 11 keys \(first row\) to 23 queries"):
        module(x, around, edge_index=torch.stack([query, key]))


def test_every_parameter_of_cross_attention_is_trained():
    module = cross("O2")
    module(cloud(module.in_type), cloud(module.context_type)).tensor.pow(2).sum().backward()
    assert_every_parameter_has_gradient(module)
    module.check_equivariance()


def test_export_of_cross_attention():
    module = cross("D4")
    x, around = (torch.randn(2, t.size, n, n, dtype=torch.float64) for t, n in ((module.in_type, 5), (module.context_type, 4)))
    expected = module.eval()(module.in_type(x), module.context_type(around)).tensor
    assert relative(module.export()(x, around), expected) < 1e-12


def test_wrong_contexts_are_refused():
    module = cross("C3")
    x, around = cloud(module.in_type), cloud(module.context_type)
    image = module.context_type(torch.randn(2, module.context_type.size, 5, 5, dtype=torch.float64))
    with pytest.raises(TypeError, match="expected a geometric tensor of type"):
        module(x, x)
    with pytest.raises(ValueError, match="x has 1 samples, but its context has 2"):
        module(x, image)
    with pytest.raises(ValueError, match="points have coords instead"):
        module(x, around, context_spacing=2.0)
    with pytest.raises(ValueError, match="positive spacing"):
        module(x, image, batch=torch.arange(23) % 2, context_spacing=-2.0)
    with pytest.raises(TypeError, match="one gspace"):
        SteerableCrossAttention(module.in_type, mixed_type("D3"), num_heads=1)
    with pytest.raises(ValueError, match="batch_size is 2, but there is no batch"):
        module(x, around, batch_size=2)
    with pytest.raises(TypeError, match=r"expected batch to be a torch\.Tensor, got list"):
        module(x, around, batch=[0] * 23)


def test_transform_keeps_pairs_together():
    """The checker's two inputs turn by one element."""
    module = cross("C4", position=EXACT)
    x, around = cloud(module.in_type), cloud(module.context_type)
    g = module.in_type.fibergroup.element(1)
    turned_alone = module(transform(x, g), around).tensor
    assert relative(turned_alone, transform(module(x, around), g).tensor) > 1e-2


def test_patterns_of_another_context_are_not_taken():
    """In one network: attention to itself, then to contexts on the same grid with other padding and weights."""
    t = mixed_type("C4")
    itself, other = (
        kind(*types, num_heads=1).double() for kind, types in ((SteerableSelfAttention, [t]), (SteerableCrossAttention, [t, t]))
    )
    x, around = (torch.randn(1, t.size, 5, 5, dtype=torch.float64) for _ in range(2))
    mask, weights = torch.arange(25).view(1, 5, 5) % 3 == 0, torch.rand(1, 5, 5, dtype=torch.float64)
    tokens = itself.forward_tokens(Tokens.on(grid_of(x), x, itself.in_layout))
    for near in (None, Disc(2.0), KNearest(3)):
        other.neighborhood = near
        for options in ({"mask": mask}, {"mask": mask, "quadrature_weights": weights}, {}):
            context = Tokens.on(grid_of(around, **options), around, other.context_layout)
            expected = other.forward_tokens(Tokens(tokens.features, grid_of(x)), context)
            found = other.forward_tokens(tokens, context)
            assert all(torch.equal(a, b) for a, b in zip(found.features, expected.features))


def test_a_context_without_points_does_not_stretch_the_others():
    """Far from the origin, a sample with nothing to attend to must not ask for more samples of the group."""
    module = cross("SO2")
    x, around = cloud(module.in_type, points=12), cloud(module.context_type, points=12, seed=1)
    far = [t.type(t.tensor, t.coords + 1000) for t in (x, around)]
    batch, mask = torch.arange(12) % 2, torch.arange(12) % 2 == 0
    out = module(*far, batch=batch, context_batch=batch, context_mask=mask).tensor
    near = module(x, around, batch=batch, context_batch=batch, context_mask=mask).tensor
    assert relative(out, near) < 1e-9
    assert out[1::2].abs().max() == 0


def test_moved_queries_are_looked_up_anew():
    module = cross("C3", neighborhood=Disc(2.0))
    x, around = (torch.randn(1, t.size, n, n).double() for t, n in ((module.in_type, 6), (module.context_type, 7)))
    tokens, context = Tokens.on(grid_of(x), x, module.in_layout), Tokens.on(grid_of(around), around, module.context_layout)
    near = module.forward_tokens(tokens, context)
    wide = Tokens(tokens.features, Grid(6, 6, spacing=1.7, dtype=torch.float64))
    assert relative(module.forward_tokens(wide, context).features[0], near.features[0]) > 1e-3


@pytest.mark.parametrize("near", [None, Disc(3.0), KNearest(3)])
def test_weights_reproduce_the_output(near):
    """Without positions, out = gains · Σ weights · values."""
    module = cross("C3", neighborhood=near, position=NoPosition)
    x, around = cloud(module.in_type, points=9), cloud(module.context_type, points=7, seed=1)
    tokens, context = module.tokens(x, around)
    weights = module.attention_weights(x, around)
    assert weights.shape == (1, 2, 9, 7)
    total = weights.sum(-1)  # zero where nothing is in the disc
    assert torch.minimum((total - 1).abs(), total).max() < 1e-12
    values = module.queries_and_context(tokens, context)[1][:, :, :, 1]
    functions = torch.einsum("bhts,bsrhc->btrhc", weights, values) * module.gain[:, None]
    expected = module.out_layout.merge(module.project_out((functions.flatten(3),)))[0].T
    reached = weights.sum(dim=(0, 1, 3)) > 0
    assert relative(module(x, around).tensor[reached], expected[reached]) < 1e-12
