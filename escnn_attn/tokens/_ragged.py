"""Clouds of very different sizes, a part of similar sizes at a time: padding costs at most twice the points."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import torch
from escnn.nn import GeometricTensor
from torch import Tensor, nn
from typing_extensions import Unpack

from escnn_attn.modes import readable
from escnn_attn.tokens._checks import require_batch_size
from escnn_attn.tokens.domain import DomainOptions

Call = TypeVar("Call", bound=Callable[..., Any])

#: padded places below which it is not worth to take clouds apart
FEW_PLACES = 2**14


class Part(NamedTuple):
    """Some clouds of a batch.

    Attributes:
        points: indices of their points.
        clouds: their indices.
        x: the points.
        options: the arguments beside x, for these clouds.
    """

    points: Tensor
    clouds: Tensor
    x: GeometricTensor
    options: DomainOptions


def in_similar_sizes(forward: Call) -> Call:
    """A `forward` of (x, **options) that takes clouds of very different sizes apart; its result is one of points or of clouds.

    Attention along an `edge_index` stays in one piece, and so does what averages over the batch: norms in training.
    """

    @wraps(forward)
    def apart(module: Any, x: Any, **options: Unpack[DomainOptions]) -> Any:
        parts = _parts(x, **options)
        if len(parts) < 2 or _averages(module):
            return forward(module, x, **options)
        return _together(parts, [forward(module, part.x, **part.options) for part in parts])

    return apart  # pyright: ignore[reportReturnType]


def _averages(module: nn.Module) -> bool:
    """Whether a module keeps running averages over the batch, and is in training."""
    return any(
        part.training and any("running_" in name for name, _ in part.named_buffers(recurse=False)) for part in module.modules()
    )


def _parts(x: object, **options: Unpack[DomainOptions]) -> list[Part]:
    """Parts of clouds whose sizes have the same power of two; none also where an argument is for the domain to refuse."""
    batch = options.get("batch")
    if not options.keys() <= DomainOptions.__annotations__.keys():
        return []
    if not isinstance(x, GeometricTensor) or x.coords is None or not isinstance(batch, Tensor):
        return []
    require_batch_size(options.get("batch_size"), len(batch))
    if options.get("edge_index") is not None or batch.shape != x.tensor.shape[:1] or not readable(batch):
        return []
    of_points = [value for value in (options.get("mask"), options.get("quadrature_weights")) if value is not None]
    if (
        batch.dtype != torch.long
        or not batch.numel()
        or any(getattr(value, "shape", None) != batch.shape for value in of_points)
    ):
        return []
    low, high = torch.stack(batch.aminmax()).tolist()
    batch_size = options.get("batch_size")
    count = high + 1 if batch_size is None else batch_size
    if low < 0 or high >= count or high > len(batch):  # the last one of many empty clouds
        return []
    if count * len(batch) <= FEW_PLACES:
        return []
    counts = torch.bincount(batch, minlength=count)
    if len(counts) * int(counts.max()) <= max(FEW_PLACES, 2 * len(batch)):
        return []
    scale = counts.clamp(min=1).log2().ceil()
    return [_part(x, batch, scale == size, options) for size in scale.unique()]


def _part(x: GeometricTensor, batch: Tensor, chosen: Tensor, options: DomainOptions) -> Part:
    points, clouds = chosen[batch].nonzero()[:, 0], chosen.nonzero()[:, 0]
    assert x.coords is not None
    of_points = {name: options.get(name) for name in ("mask", "quadrature_weights")}
    kept: dict[str, Any] = {name: None if value is None else value[points] for name, value in of_points.items()}
    kept |= {name: value for name, value in options.items() if name in ("periodic", "cell")}
    kept |= {"batch": (chosen.cumsum(0) - 1)[batch[points]], "batch_size": len(clouds)}
    return Part(points, clouds, GeometricTensor(x.tensor[points], x.type, x.coords[points]), DomainOptions(**kept))


def _together(parts: list[Part], results: list[Any]) -> Any:
    """The results of all parts, in the order of the points or of the clouds."""
    first = results[0]
    tensors = [result.tensor if isinstance(result, GeometricTensor) else result for result in results]
    by_point = isinstance(first, GeometricTensor) and first.coords is not None
    index = torch.cat([part.points if by_point else part.clouds for part in parts])
    out = torch.cat(tensors).index_select(0, index.argsort())
    if not isinstance(first, GeometricTensor):
        return out
    if not by_point:
        return GeometricTensor(out, first.type)
    coords = torch.cat([part.x.coords for part in parts if part.x.coords is not None])
    return GeometricTensor(out, first.type, coords.index_select(0, index.argsort()))
