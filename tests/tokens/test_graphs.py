"""Graphs of PyTorch Geometric, by their attributes: a stand-in of its classes has the same."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch

from escnn_attn import NoPosition, SteerableSelfAttention, field_type, geometric, planar_gspace
from tests.helpers import randomize

SPACE = planar_gspace("C4")
FIELDS = field_type(SPACE, scalars=2, vectors=1)


@dataclass
class Data:
    """As `torch_geometric.data.Data`: attributes that are not given are None."""

    pos: torch.Tensor | None = None
    x: torch.Tensor | None = None
    batch: torch.Tensor | None = None
    edge_index: torch.Tensor | None = None


@dataclass
class Batch(Data):
    """As `torch_geometric.data.Batch`."""

    num_graphs: int = 1


def drawn(points: int = 7, **attributes) -> Data:
    return Data(torch.randn(points, 2).double(), torch.randn(points, FIELDS.size).double(), **attributes)


def attention(**options) -> SteerableSelfAttention:
    return randomize(SteerableSelfAttention(FIELDS, num_heads=1, **options).double())


def followed(layer, data: Data, **options) -> torch.Tensor:
    x, given = geometric(data, FIELDS, **options)
    return layer(x, **given).tensor


def reads(layer, data: Data, **options) -> torch.Tensor:
    """Whether the output at point i depends on the features of point j, as (i, j)."""

    def out(x: torch.Tensor) -> torch.Tensor:
        return followed(layer, Data(data.pos, x, data.batch, data.edge_index), **options)

    jacobian = torch.autograd.functional.jacobian(out, data.x)
    return jacobian.abs().sum(dim=(1, 3)) > 1e-12


#: 0 → 1, 2 → 1, 1 → 3, and a loop at 2
EDGES = torch.tensor([[0, 2, 1, 2], [1, 1, 3, 2]])


@pytest.mark.parametrize(
    ("flow", "expected"),
    [("source_to_target", {(1, 0), (1, 2), (3, 1), (2, 2)}), ("target_to_source", {(0, 1), (2, 1), (1, 3), (2, 2)})],
)
def test_a_target_reads_its_sources(flow, expected):
    found = reads(attention(), drawn(4, edge_index=EDGES), flow=flow)
    # of its own features a point has the query, which matters where there are several keys
    others = {(i, j) for i, j in found.nonzero().tolist() if i != j or (i, j) in expected}
    assert others == expected


def test_two_sources_are_mixed_by_weights_that_sum_to_one():
    """And where no edge leads, there is the bias alone: of a target with one source the weight is one."""
    layer, data = attention(position=NoPosition), drawn(3, edge_index=torch.tensor([[0, 2], [1, 1]]))
    single = [followed(layer, Data(data.pos, data.x, None, torch.tensor([[j], [1]])))[1] for j in (0, 2)]  # one key: weight 1
    both, bias = followed(layer, data)[1], followed(layer, Data(data.pos, data.x, None, EDGES[:, :0]))[1]
    first, second, mixed = single[0] - bias, single[1] - bias, both - bias
    weight = ((mixed - second) @ (first - second)) / ((first - second) @ (first - second))
    assert 0.01 < weight < 0.99
    torch.testing.assert_close(mixed, weight * first + (1 - weight) * second)
    untouched = followed(layer, data)
    torch.testing.assert_close(untouched[0], bias)  # no edge leads to it
    turned = followed(layer, data, flow="target_to_source")
    torch.testing.assert_close(turned[1], bias)
    assert not torch.allclose(turned[0], bias)


def test_batches_are_their_graphs_one_by_one_in_any_order():
    graphs = [drawn(4, edge_index=EDGES), drawn(3, edge_index=torch.tensor([[0, 2], [1, 0]]))]
    batch = torch.tensor([0] * 4 + [1] * 3)
    edges = torch.cat([graphs[0].edge_index, graphs[1].edge_index + 4], dim=1)
    joined = Batch(*(torch.cat([getattr(g, name) for g in graphs]) for name in ("pos", "x")), batch, edges, num_graphs=4)
    layer = attention()
    expected = torch.cat([followed(layer, graph) for graph in graphs])
    torch.testing.assert_close(followed(layer, joined), expected)
    order = torch.randperm(7)
    shuffled = Batch(joined.pos[order], joined.x[order], batch[order], order.argsort()[edges], num_graphs=4)
    torch.testing.assert_close(followed(layer, shuffled), expected[order])
    assert geometric(joined, FIELDS)[1]["batch_size"] == 4  # two of them empty


def test_without_edges_all_points_of_a_cloud_attend():
    data = drawn(5, batch=torch.tensor([0, 0, 1, 1, 1]))
    x, options = geometric(data, FIELDS)
    assert set(options) == {"batch"}
    found = reads(attention(), data)
    assert torch.equal(found, data.batch[:, None] == data.batch)
    assert torch.equal(x.coords, data.pos)


double = partial(torch.zeros, dtype=torch.float64)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"pos": None}, TypeError, r"expected data\.pos \(points, 2\), got none"),
        ({"pos": double(7, 3)}, ValueError, r"expected data\.pos \(points, 2\), got \(7, 3\); .* data\.pos\[:, :2\]"),
        ({"pos": double(6, 2)}, ValueError, r"expected data\.x and data\.pos of as many points, got 7 and 6"),
        ({"x": None}, TypeError, r"expected data\.x \(points, 4\), got none; .* torch\.ones\(points, 1\)"),
        ({"x": double(7, 3)}, ValueError, r"expected data\.x \(points, 4\), got \(7, 3\); columns are the channels"),
        ({"x": torch.zeros(7, 4, dtype=torch.long)}, TypeError, r"expected floating-point data\.x, got torch\.int64: embed"),
        ({"x": [1.0]}, TypeError, r"expected data\.x to be a torch\.Tensor, got list"),
        ({"batch": torch.zeros(6, dtype=torch.long)}, ValueError, "expected batch to be 7 int64 indices"),
        (
            {"edge_index": torch.tensor([[0], [7]])},
            ValueError,
            r"expected edge_index from 7 keys .* got indices from 0 to \[0, 7\]",
        ),
        ({"edge_index": torch.tensor([[-1], [0]])}, ValueError, "got indices from -1"),
        (
            {"edge_index": torch.tensor([[0], [6]]), "batch": torch.tensor([0] * 3 + [1] * 4)},
            ValueError,
            "expected edges within clouds, but edge_index joins points of different clouds",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused(changes, kind, message):
    data = drawn(7)
    for name, value in changes.items():
        setattr(data, name, value)
    with pytest.raises(kind, match=message):
        followed(attention(), data)


def test_other_flows_and_types_are_refused():
    with pytest.raises(ValueError, match="expected flow to be one of 'source_to_target', 'target_to_source', got 'both'"):
        geometric(drawn(), FIELDS, flow="both")
    with pytest.raises(TypeError, match="field_type must be of type FieldType, got 3"):
        geometric(drawn(), 3)
