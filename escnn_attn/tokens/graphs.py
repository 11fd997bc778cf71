"""Graphs of other libraries as input of modules."""

from typing import Any, cast

from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.arguments import require_choice, require_instance
from escnn_attn.tokens._checks import require_tensor
from escnn_attn.tokens.domain import DomainOptions

#: directions of messages in PyTorch Geometric: by default from the first row of `edge_index` to the second
FLOWS = ("source_to_target", "target_to_source")


def geometric(data: Any, field_type: FieldType, *, flow: str = "source_to_target") -> tuple[GeometricTensor, DomainOptions]:
    """The input of modules for a `Data` or `Batch` of PyTorch Geometric: points with features, and their clouds and edges.

    Read are the attributes `pos` (points, 2), `x` (points, channels), `batch` (points,) and `edge_index` (2, edges), the last two where there
    are any; PyTorch Geometric itself is not needed. With edges, attention is along them: as the messages of
    `torch_geometric.nn.MessagePassing` it goes from source j to target i, so that the target is the query, and the source the key. A point
    attends to itself only along a loop. Without edges, or with `options.pop("edge_index")`, each point attends to its cloud, or to the
    neighborhood of a layer. Weights and attributes of edges are not read.

    Args:
        data: with the attributes above.
        field_type: of the module; the columns of `x` are its channels, a vector the two components along x and y.
        flow: `"source_to_target"`, sources in the first row of `edge_index`, or `"target_to_source"`, as of `MessagePassing`.

    Returns:
        the points as a geometric tensor, and the keyword arguments of `forward` beside it.

    Raises:
        TypeError: if `pos` or `x` is missing, or no tensor of floating-point numbers.
        ValueError: if one has another shape. The module itself refuses edges that do not fit the points.

    Examples:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from escnn_attn import SteerablePointTransformer, geometric
        >>> network = SteerablePointTransformer("O2", out_fields={"vectors": 1}, channels=4, max_frequency=1, depth=1)
        >>> pos, edges = torch.randn(7, 2), torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> data = SimpleNamespace(pos=pos, x=torch.randn(7, 1), edge_index=edges)  # or a torch_geometric.data.Data
        >>> points, options = geometric(data, network.in_type)
        >>> network(points, **options).shape
        torch.Size([7, 2])
    """
    require_instance("field_type", field_type, FieldType)
    require_choice("flow", flow, FLOWS)
    x, pos = _numbers(data, "x", field_type.size), _numbers(data, "pos", 2)
    if len(x) != len(pos):
        raise ValueError(f"expected data.x and data.pos of as many points, got {len(x)} and {len(pos)}")
    options: dict[str, Any] = {"batch": getattr(data, "batch", None), "edge_index": getattr(data, "edge_index", None)}
    if options["batch"] is not None:
        options["batch_size"] = getattr(data, "num_graphs", None)  # the last graphs may be empty
    if options["edge_index"] is not None and flow == "target_to_source":
        options["edge_index"] = require_tensor(options["edge_index"], "data.edge_index").flip(0)
    return GeometricTensor(x, field_type, pos), cast(DomainOptions, {name: v for name, v in options.items() if v is not None})


#: what to do about a missing attribute, or one of another width
ADVICE = {
    "x": "columns are the channels of the field type; points without features are scalars of ones, torch.ones(points, 1)",
    "pos": "the groups are those of the plane: choose two columns of positions in space, such as data.pos[:, :2]",
}


def _numbers(data: Any, name: str, columns: int) -> Tensor:
    """An attribute of floating-point numbers (points, columns)."""
    value = getattr(data, name, None)
    if value is None:
        raise TypeError(f"expected data.{name} (points, {columns}), got none; {ADVICE[name]}")
    if require_tensor(value, f"data.{name}").dim() != 2 or value.shape[1] != columns:
        raise ValueError(f"expected data.{name} (points, {columns}), got {tuple(value.shape)}; {ADVICE[name]}")
    if not value.is_floating_point():
        raise TypeError(f"expected floating-point data.{name}, got {value.dtype}: embed indices, or convert by .float()")
    return value
