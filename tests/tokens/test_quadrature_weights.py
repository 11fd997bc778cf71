"""Quadrature weights: the share of the plane that each token stands for."""

import pytest
import torch

from escnn_attn import Disc, InvariantPooling, KNearest
from escnn_attn.tokens import Tokens, grid_of
from tests.helpers import attention_on, cloud, mixed_type, pixels_of, relative

NEAR = [None, Disc(2.0), KNearest(5)]


def points_of_a_grid(module):
    x = torch.randn(1, module.in_type.size, 7, 10, dtype=torch.float64)
    return module.in_type(x), module.in_type(x.flatten(2)[0].T.contiguous(), pixels_of(7, 10))


@pytest.mark.parametrize("near", [None, Disc(2.0)])
def test_points_that_come_thrice_with_a_third_of_the_weight(near):
    module = attention_on("O2", neighborhood=near)
    _, points = points_of_a_grid(module)
    weights = torch.rand(70, dtype=torch.float64)
    out = module(points, quadrature_weights=weights).tensor
    thrice = module.in_type(points.tensor.repeat(3, 1), points.coords.repeat(3, 1))
    assert relative(module(thrice, quadrature_weights=weights.repeat(3) / 3).tensor[:70], out) < 1e-12
    assert relative(out, module(points).tensor) > 1e-2


@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("domain", ["grid", "points"])
def test_equal_weights_and_weights_of_zero(near, domain):
    """Equal weights change nothing; a token of weight zero is not attended to, but attends."""
    module = attention_on("D4", neighborhood=near)
    x = points_of_a_grid(module)[domain == "points"]
    shape = (1, 7, 10) if domain == "grid" else (70,)
    assert relative(module(x, quadrature_weights=torch.full(shape, 3.0).double()).tensor, module(x).tensor) < 1e-12
    kept = torch.rand(shape) > 0.5
    partial = module(x, quadrature_weights=kept.double()).tensor
    masked = module(x, mask=kept).tensor
    keep = kept[:, None].expand_as(masked) if domain == "grid" else kept
    assert relative(partial[keep], masked[keep]) < 1e-12
    weighted = torch.rand(shape).double() * kept
    other = torch.rand(shape) > 0.3
    both = module(x, quadrature_weights=weighted, mask=other).tensor
    expected = module(x, quadrature_weights=weighted.where(weighted > 0, 7.0), mask=other & kept).tensor
    keep = other & kept if domain == "points" else (other & kept)[:, None].expand_as(both)
    assert relative(both[keep], expected[keep]) < 1e-12


@pytest.mark.parametrize("near", NEAR)
def test_a_grid_has_the_weights_of_its_cloud(near):
    module = attention_on("C4", neighborhood=near)
    grid, points = points_of_a_grid(module)
    weights = torch.rand(70, dtype=torch.float64)
    weights[::4] = 0
    on_grid = module(grid, quadrature_weights=weights.view(1, 7, 10)).tensor[0].flatten(1).T
    assert relative(on_grid, module(points, quadrature_weights=weights).tensor) < 1e-12


def test_nothing_to_attend_to_gives_zero():
    module = attention_on("C4", neighborhood=Disc(1.0))
    grid, points = points_of_a_grid(module)
    weights = torch.zeros(70, dtype=torch.float64)
    weights[44] = 1
    reached = (points.coords - points.coords[44]).norm(dim=1) <= 1
    for out in (
        module(points, quadrature_weights=weights).tensor,
        module(grid, quadrature_weights=weights.view(1, 7, 10)).tensor[0].flatten(1).T,
    ):
        assert out[~reached].abs().max() == 0
        assert out[reached].abs().amax(dim=1).min() > 0


def test_pooling_is_a_weighted_mean():
    pool = InvariantPooling(mixed_type("D4")).double()
    x, weights = cloud(pool.in_type), torch.tensor([1.0] * 5 + [0.0] * 18).double()
    assert relative(pool(x, quadrature_weights=weights).tensor, pool(pool.in_type(x.tensor[:5], x.coords[:5])).tensor) < 1e-12
    assert relative(pool(x, quadrature_weights=weights).tensor, pool(x).tensor) > 1e-2


def test_padding_has_no_weight_whatever_it_is():
    """On tokens, where nothing has set the weights of padding to zero."""
    module = attention_on("C4")
    x, mask = torch.randn(1, module.in_type.size, 5, 5).double(), torch.arange(25).view(1, 5, 5) % 3 > 0
    grids = grid_of(x, mask=mask, quadrature_weights=torch.ones(1, 5, 5).double()), grid_of(x, mask=mask)
    found, expected = (module.forward_tokens(Tokens.on(grid, x, module.in_layout)).features for grid in grids)
    assert all(relative(a[:, mask.flatten(1)], b[:, mask.flatten(1)]) < 1e-12 for a, b in zip(found, expected))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-torch.ones(23), "not negative"),
        (torch.full((23,), torch.nan), "finite quadrature_weights"),
        (torch.ones(5), r"weights of shape \(23,\)"),
        (torch.ones(23).long(), "floating-point quadrature_weights"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    module = attention_on("C3")
    with pytest.raises(ValueError, match=message):
        module(cloud(module.in_type), quadrature_weights=weights)
