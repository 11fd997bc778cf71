"""Neighborhoods that a user writes, and wrong ones."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from escnn_attn import Disc, KNearest, Neighborhood
from tests.helpers import attention_on, cloud, relative


def test_wrong_neighborhoods_are_refused():
    module = attention_on("C3")
    with pytest.raises(ValueError, match="take a neighborhood"):
        module(
            module.in_type(torch.randn(1, module.in_type.size, 7, 10).double()), edge_index=torch.zeros(2, 5, dtype=torch.long)
        )
    with pytest.raises(TypeError, match=r"such as Disc\(3.0\)"):
        attention_on("C3", neighborhood=3.0)
    with pytest.raises(ValueError, match="positive radius, got -1"):
        Disc(-1.0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        KNearest(0)


class Ring(Neighborhood):
    """A user's neighborhood: itself, and what is at a middle distance."""

    def pairs(self, query, key, slack):
        gaps = np.linalg.norm(query[:, None] - key[None], axis=-1)
        return np.stack(np.nonzero((gaps < 1e-9) | ((gaps > 1) & (gaps < 2)))[::-1])


def test_a_users_neighborhood():
    module = attention_on("C3", neighborhood=Ring())
    x = cloud(module.in_type)
    gaps = torch.cdist(x.coords, x.coords)
    expected = (gaps < 1e-6) | ((gaps > 1) & (gaps < 2))
    assert torch.equal(module.attention_weights(x)[0, 0] > 0, expected)


@dataclass(frozen=True)
class Annulus(Neighborhood):
    """A user's neighborhood whose hash fails when it is asked for."""

    radii: list[float]

    def pairs(self, query, key, slack):
        gaps = np.linalg.norm(query[:, None] - key[None], axis=-1)
        return np.stack(np.nonzero((gaps >= self.radii[0]) & (gaps < self.radii[1]))[::-1])


def test_a_neighborhood_that_cannot_be_hashed():
    module = attention_on("C3", neighborhood=Annulus([0.0, 2.0]))
    x = cloud(module.in_type)
    assert torch.equal(module.attention_weights(x)[0, 0] > 0, torch.cdist(x.coords, x.coords) < 2)


@pytest.mark.parametrize(
    "pairs", [lambda q, k: np.zeros((3, 2), int), lambda q, k: np.zeros((2, 3)), lambda q, k: np.zeros(4, int)]
)
def test_wrong_pairs_of_a_user_are_refused(pairs):
    class Wrong(Neighborhood):
        def pairs(self, query, key, slack):
            return pairs(query, key)

    module = attention_on("C3", neighborhood=Wrong())
    with pytest.raises(ValueError, match=r"expected pairs \(2, e\) of integers"):
        module(cloud(module.in_type))


def test_wrong_pairs_of_a_user_are_refused_where_compilers_ask_for_them():
    class Wrong(Neighborhood):
        def pairs(self, query, key, slack):
            return np.array([[0, 30], [0, 1]])

    module = attention_on("C3", neighborhood=Wrong())
    with pytest.raises(
        ValueError, match=r"expected pairs of 25 keys \(first row\) and 25 queries .*, got indices from 0 to \[30, 1\]"
    ):
        torch.export.export(module.export(), (torch.randn(1, module.in_type.size, 5, 5).double(),), strict=False)


@pytest.mark.parametrize("reach", [2.6, -1.0])
def test_a_neighborhood_reaches_at_most_half_of_a_cell(reach):
    class Far(Ring):
        def reach(self, width, height):
            return reach

    module = attention_on("C3", neighborhood=Far())
    with pytest.raises(ValueError, match=r"expected a reach from 0 to 2\.5, half of the cell, from .*Far.*, got"):
        module(module.in_type(torch.randn(1, module.in_type.size, 5, 5).double()), periodic=True)


def test_pairs_of_two_samples_are_left_out():
    class Everyone(Neighborhood):
        __hash__ = None

        def pairs(self, query, key, slack):
            return np.stack(np.meshgrid(np.arange(len(key)), np.arange(len(query)))).reshape(2, -1)

    module = attention_on("C3", neighborhood=Everyone())
    x, batch = cloud(module.in_type), torch.arange(23) % 3
    out = module(x, batch=batch).tensor
    module.neighborhood = None
    assert relative(out, module(x, batch=batch).tensor) < 1e-12


class Union(Neighborhood):
    """Discs and nearest tokens, of which a careless user lists some pairs twice."""

    def pairs(self, query, key, slack):
        return np.concatenate([near.pairs(query, key, slack) for near in (Disc(1.0), KNearest(3))], axis=1)


def test_pairs_that_are_listed_twice_count_once():
    class Once(Union):
        def pairs(self, query, key, slack):
            return np.unique(super().pairs(query, key, slack), axis=1)

    module = attention_on("C3", neighborhood=Union())
    x = cloud(module.in_type)
    out = module(x).tensor
    module.neighborhood = Once()
    assert relative(out, module(x).tensor) < 1e-12


@pytest.mark.parametrize("index", [-1, 99])
def test_pairs_out_of_range_are_refused(index):
    class Wrong(Neighborhood):
        def pairs(self, query, key, slack):
            return np.array([[0, index], [0, 0]])

    module = attention_on("C3", neighborhood=Wrong())
    with pytest.raises(ValueError, match=r"expected pairs of 23 keys \(first row\) and 23 queries"):
        module(cloud(module.in_type))
