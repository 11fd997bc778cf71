"""Between escnn's geometric tensors and tokens: isotypic features at positions of the plane."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.fields import IsotypicLayout
from escnn_attn.functional import Features


@dataclass(frozen=True)
class Tokens:
    """What every layer of a stack reads and writes: features in isotypic layout, at positions.

    Attributes:
        features: one (d, b, t, m) for each irrep: component, batch, token, copy.
        positions: (b, t, 2), or (1, t, 2) where all samples share them, as (x, y), y up, centred; on a grid in token
            spacings, on clouds in the units of `coords`.
        mask: (b, t), True for tokens, False for padding; None where every token counts.
        key: names the positions where all inputs of one shape share them, as on grids, so that what depends on positions
            alone need not be computed anew; None on clouds.
    """

    features: Features
    positions: Tensor
    mask: Tensor | None = None
    key: tuple | None = None

    def with_features(self, features: Features) -> "Tokens":
        """These tokens with other features."""
        return replace(self, features=features)

    def __add__(self, other: "Tokens") -> "Tokens":
        return self.with_features(tuple(a + b for a, b in zip(self.features, other.features, strict=True)))


@lru_cache(maxsize=64)
def grid_positions(height: int, width: int) -> Tensor:
    """Centred positions (1, height·width, 2) of the pixels of a grid, as (x, y), y up, in token spacings, float64.

    Example:
        >>> grid_positions(1, 2).tolist()
        [[[-0.5, 0.0], [0.5, 0.0]]]
    """
    with torch.inference_mode(False):  # what is kept must do for training too
        y = (height - 1) / 2 - torch.arange(height, dtype=torch.float64)
        x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(1, -1, 2)


def require_type(x: object, expected: FieldType) -> GeometricTensor:
    """Returns `x` if it is a geometric tensor of the expected type, and raises a TypeError otherwise."""
    if not isinstance(x, GeometricTensor):
        raise TypeError(f"expected an escnn.nn.GeometricTensor of type {expected}, got {type(x).__name__}")
    if x.type is not expected and x.type != expected:
        raise TypeError(f"expected a geometric tensor of type {expected}, got one of type {x.type}")
    return x


@dataclass(frozen=True)
class Domain:
    """Where tokens came from, and how to put tensors back there: a grid, or flattened clouds.

    Attributes:
        coords: (points, 2) of the clouds, None on a grid.
        slots: (points,) index of each point among the padded (cloud, place) pairs, None on a grid or for one cloud.
        shape: (batch, height, width), or (clouds, places).
    """

    shape: tuple[int, ...]
    coords: Tensor | None = None
    slots: Tensor | None = None

    def spread(self, x: Tensor) -> Tensor:
        """A tensor of the domain as (batch, channels, tokens), zero where there is no token."""
        if self.coords is None:
            return x.flatten(2)
        if self.slots is None:
            return x.T[None]
        padded = x.new_zeros(self.shape[0] * self.shape[1], x.shape[1]).index_copy(0, self.slots, x)
        return padded.view(*self.shape, x.shape[1]).transpose(1, 2)

    def collect(self, x: Tensor) -> Tensor:
        """The inverse of `spread`."""
        if self.coords is None:
            return x.unflatten(2, self.shape[1:])
        if self.slots is None:
            return x[0].T
        return x.transpose(1, 2).flatten(0, 1).index_select(0, self.slots)


def domain_of(x: GeometricTensor, batch: Tensor | None = None, batch_size: int | None = None) -> Domain:
    """The domain of a geometric tensor, with clouds told apart by `batch`, one index a point.

    Raises:
        ValueError: if `batch` is given for a grid, has a wrong length or dtype, or an index outside `batch_size`, or `batch_size` comes alone.
    """
    if x.coords is None:
        if batch is not None:
            raise ValueError("batch tells the clouds of flattened points apart, but this tensor is a grid (it has no coords)")
        return Domain((x.shape[0], *x.shape[2:]))
    points = x.coords.shape[0]
    if batch is None and batch_size not in (None, 1):
        raise ValueError(f"batch_size is {batch_size}, but there is no batch to tell the clouds apart")
    if batch is None:
        return Domain((1, points), x.coords)
    if batch.shape != (points,) or batch.dtype != torch.long:
        raise ValueError(f"expected batch to be {points} int64 indices, got shape {tuple(batch.shape)} of {batch.dtype}")
    counts = torch.bincount(batch, minlength=batch_size or 0)
    if batch_size is not None and len(counts) > batch_size:
        raise ValueError(f"batch holds index {len(counts) - 1}, but batch_size is {batch_size}")
    places = int(counts.max()) if len(counts) else 0
    order = torch.argsort(batch, stable=True)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(batch)
    rank[order] = torch.arange(points, device=batch.device) - starts[batch[order]]
    return Domain((len(counts), places), x.coords, batch * places + rank)


def to_tokens(x: GeometricTensor, layout: IsotypicLayout, domain: Domain, mask: Tensor | None = None) -> Tokens:
    """Tokens of a geometric tensor: its isotypic features, centred positions and padding mask.

    Args:
        x: grid (b, c, height, width), or points (points, c) with coords (points, 2).
        layout: of the type of x.
        domain: of x.
        mask: (b, height, width) or (points,) of bool, False for padding; what padding holds has no effect.

    Raises:
        ValueError: if the mask does not fit x, or coords are not finite.
    """
    keep = _padding(x, domain, mask)
    if x.coords is None:
        return grid_tokens(x.tensor, layout, keep)
    if not torch.isfinite(x.coords).all():
        raise ValueError("expected finite coords, got NaN or infinity")
    features = _isotypic(domain.spread(x.tensor), layout, keep)
    positions = domain.spread(x.coords.to(position_dtype(x.coords.dtype))).mT
    if keep is None:
        return Tokens(features, positions - positions.mean(dim=1, keepdim=True))
    weight = keep[..., None].to(positions.dtype)
    centre = (positions * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    return Tokens(features, (positions - centre) * weight, keep)


def grid_tokens(x: Tensor, layout: IsotypicLayout, keep: Tensor | None = None) -> Tokens:
    """Tokens of a plain tensor (b, c, height, width), with a padding mask (b, height·width)."""
    height, width = x.shape[2:]
    positions = grid_positions(height, width).to(device=x.device, dtype=position_dtype(x.dtype))
    return Tokens(_isotypic(x.flatten(2), layout, keep), positions, keep, ("grid", height, width))


def _isotypic(x: Tensor, layout: IsotypicLayout, keep: Tensor | None) -> Features:
    return layout.split(x if keep is None else x.masked_fill(~keep[:, None], 0))


def _padding(x: GeometricTensor, domain: Domain, mask: Tensor | None) -> Tensor | None:
    """The padding mask (b, t) that the user's mask and the unequal sizes of clouds make together."""
    if mask is None:
        if domain.slots is None:
            return None
        mask = torch.ones(x.shape[0], dtype=torch.bool, device=x.tensor.device)
    expected = (x.shape[0], *x.shape[2:])
    if mask.shape != expected or mask.dtype != torch.bool:
        raise ValueError(f"expected a bool mask of shape {expected}, got {tuple(mask.shape)} of {mask.dtype}")
    return domain.spread(mask[:, None])[:, 0]


@lru_cache(maxsize=64)
def disc_window(height: int, width: int) -> Tensor:
    """1 on the pixels (height, width) of the largest centred disc of a grid, and 0 beyond, with an edge one pixel wide."""
    with torch.inference_mode(False):
        radius = grid_positions(height, width).norm(dim=-1).view(height, width)
        return (min(height, width) / 2 - radius + 0.5).clamp(0, 1)


@lru_cache(maxsize=64)
def _inside_disc(height: int, width: int) -> Tensor:
    with torch.inference_mode(False):
        return (grid_positions(height, width)[0].norm(dim=-1) <= min(height, width) / 2).nonzero()[:, 0]


def disc_tokens(tokens: Tokens) -> Tokens:
    """The tokens of a grid whose centres are within its largest centred disc."""
    assert tokens.key is not None
    _, height, width = tokens.key
    inside = _inside_disc(height, width).to(tokens.positions.device)
    features = tuple(f.index_select(2, inside) for f in tokens.features)
    mask = None if tokens.mask is None else tokens.mask.index_select(1, inside)
    return Tokens(features, tokens.positions.index_select(1, inside), mask, key=("disc", height, width))


def position_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of positions and phases beside features of `dtype`: never below float32."""
    return dtype if dtype == torch.float64 else torch.float32


def from_tokens(tokens: Tokens, field_type: FieldType, layout: IsotypicLayout, domain: Domain) -> GeometricTensor:
    """The geometric tensor of tokens, in the domain they came from; zero where the mask has padding."""
    x = layout.merge(tokens.features)
    if tokens.mask is not None:
        x = x.masked_fill(~tokens.mask[:, None], 0)
    coords = {} if domain.coords is None else {"coords": domain.coords}
    return GeometricTensor(domain.collect(x), field_type, **coords)
