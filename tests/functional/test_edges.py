"""Attention along the edges of a graph."""

from itertools import pairwise

import pytest
import torch

from escnn_attn import Disc, GroupSelfAttention, fourier_type, planar_gspace
from escnn_attn.functional import edges
from escnn_attn.functional.edges import attend_edges, chunks, edge_formula
from escnn_attn.nn.position.rotary import PositionEmbedding
from tests.helpers import attention_on, cloud, pixels_of, relative


def test_a_graph_of_the_user():
    """The edges of a disc, given by hand in any order, make attention to the disc; without any, tokens get zeros."""
    module = attention_on("O2")
    x = cloud(module.in_type, points=30, radius=4.0)
    query, key = (torch.cdist(x.coords, x.coords) <= 2).nonzero().T
    order = torch.randperm(len(key))
    edge_index = torch.stack([key, query])[:, order]
    local = module(x, edge_index=edge_index[:, edge_index[1] != 4]).tensor
    weights = module.attention_weights(x, edge_index=edge_index)
    module.neighborhood = Disc(2.0)
    expected = module(x).tensor
    assert relative(weights, module.attention_weights(x)) < 1e-12
    others = torch.arange(30) != 4
    assert local[4].abs().max() == 0
    assert relative(local[others], expected[others]) < 1e-12


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (torch.zeros(3, 5, dtype=torch.long), r"edge_index \(2, edges\) of int64, got shape \(3, 5\)"),
        (torch.zeros(2, 5), "torch.float32"),
        (torch.tensor([[0, 23], [1, 2]]), "from 23 keys"),
        (torch.tensor([[0, -1], [1, 2]]), "got indices from -1"),
        (torch.tensor([[0, 20], [1, 2]]), "joins points of different clouds"),
    ],
)
def test_wrong_graphs_are_refused(edge_index, message):
    module = attention_on("C3")
    with pytest.raises(ValueError, match=message):
        module(cloud(module.in_type), edge_index=edge_index, batch=torch.arange(23) // 12)


def random_graph(queries=9, keys=7, count=40):
    key, query = torch.randint(keys, (count,)), torch.randint(queries - 1, (count,)).sort().values
    query[5:30] = query[5]  # many edges into one query, none into the last
    return torch.stack([key, query.sort().values])


@pytest.mark.parametrize("size", [1, 4, 10_000])
@pytest.mark.parametrize("biased", [True, False])
def test_edges_in_chunks_agree_with_the_formula(size, biased, monkeypatch):
    monkeypatch.setattr(edges, "CHUNK", size)
    graph = random_graph()
    q, k, v = (torch.randn(n, 3, 5, dtype=torch.float64, requires_grad=True) for n in (9, 7, 7))
    bias = torch.randn(40, 3, dtype=torch.float64, requires_grad=True) if biased else None
    inputs = [x for x in (q, k, v, bias) if x is not None]

    def attend(*inputs):
        return attend_edges(*inputs[:3], 0.7, graph, inputs[3] if biased else None)

    assert relative(attend(*inputs), edge_formula(q, k, v, bias, 0.7, graph)[0]) < 1e-12
    assert torch.autograd.gradcheck(attend, inputs)
    assert torch.autograd.gradgradcheck(attend, inputs, fast_mode=True)


def test_edges_of_one_query_stay_in_one_chunk(monkeypatch):
    monkeypatch.setattr(edges, "CHUNK", 4)
    query = random_graph()[1]
    parts = list(chunks(query))
    assert torch.equal(torch.cat([query[part] for part, _ in parts]), query)
    assert all(not set(query[a].tolist()) & set(query[b].tolist()) for (a, _), (b, _) in pairwise(parts))
    assert all(len(query[part]) <= 4 or len(query[part].unique()) == 1 for part, _ in parts)


class Sharp(PositionEmbedding):
    """A user's bias of one number a head, which broadcasts to all pairs."""

    def bias(self, x_query, x_key):
        return torch.linspace(0, 1, self.num_heads, dtype=x_query.dtype)[:, None, None]


class Forbid(PositionEmbedding):
    """A user's bias that leaves nothing to attend to."""

    def bias(self, x_query, x_key):
        return torch.full((1, 1, 1, 1), float("-inf"), dtype=x_query.dtype)


@pytest.mark.parametrize("size", [4, 10_000])
def test_biases_broadcast(size, monkeypatch):
    monkeypatch.setattr(edges, "CHUNK", size)
    module = attention_on("C3", position=Sharp)
    x = cloud(module.in_type)
    expected = module(x).tensor
    assert relative(module(x, edge_index=torch.cartesian_prod(torch.arange(23), torch.arange(23)).T).tensor, expected) < 1e-12
    field = torch.randn(1, module.in_type.size, 9, 9).double()
    points = module.in_type(field.flatten(2)[0].T.contiguous(), pixels_of(9, 9))
    for module.neighborhood in (Disc(1.0), Disc(6.0)):
        out = module(module.in_type(field)).tensor[0].flatten(1).T
        assert relative(out, module(points).tensor) < 1e-12
    forbidden = attention_on("C3", position=Forbid, neighborhood=Disc(2.0))
    assert forbidden(x).tensor.isfinite().all()


def test_an_edge_that_comes_twice_counts_once():
    module = attention_on("O2")
    x, once = cloud(module.in_type), torch.randint(23, (2, 60)).unique(dim=1)
    twice = torch.cat([once, once[:, ::2]], dim=1)
    assert torch.equal(module(x, edge_index=twice).tensor, module(x, edge_index=once).tensor)


def test_weights_along_a_graph_of_group_attention():
    """Several keys at each token, each with the weight of its token."""
    module = GroupSelfAttention(fourier_type(planar_gspace("C4"), 3), num_heads=2).double()
    x, weights = cloud(module.in_type), torch.rand(23, dtype=torch.float64)
    expected = module(x, quadrature_weights=weights).tensor
    every = torch.cartesian_prod(torch.arange(23), torch.arange(23)).T
    assert relative(module(x, quadrature_weights=weights, edge_index=every).tensor, expected) < 1e-12
