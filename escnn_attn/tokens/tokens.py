"""Between escnn's geometric tensors and tokens: isotypic features at positions of the plane."""

from dataclasses import dataclass, field, replace

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor

from escnn_attn.fields.types import IsotypicLayout
from escnn_attn.functional.attention import Features
from escnn_attn.tokens.domains import Domain, grid_positions, inside_disc, require_tensor


@dataclass(frozen=True)
class Tokens:
    """What every layer of a stack reads and writes: features in isotypic layout, at positions.

    Attributes:
        features: one (d, b, t, m) for each irrep: component, batch, token, copy.
        positions: (b, t, 2), or (1, t, 2) where all samples share them, as (x, y), y up, about the center; on a grid in
            token spacings, on clouds in the units of `coords`.
        mask: (b, t), True for tokens, False for padding; None where every token counts.
        quadrature_weights: (b, t) quadrature weights, the share of the plane that each token stands for; None where all are equal.
        edges: (2, e) a graph for attention, from key to query, with tokens counted through as b·t; None without.
        center: (b, 1, 2) of clouds, in the coordinates of the input; None on grids, where it is the origin.
        key: names the positions where all inputs of one shape share them, as on grids, so that what depends on positions
            alone need not be computed anew; None on clouds.
        shared: what layers have computed from the positions alone, kept for later layers.

    Examples:
        >>> from escnn_attn import IsotypicLayout, fourier_type, planar_gspace
        >>> layout = IsotypicLayout(fourier_type(planar_gspace("SO2"), 4, 1))
        >>> tokens = grid_tokens(torch.randn(2, 12, 5, 5), layout)
        >>> [tuple(f.shape) for f in tokens.features], tuple(tokens.positions.shape)
        ([(1, 2, 25, 4), (2, 2, 25, 4)], (1, 25, 2))
    """

    features: Features
    positions: Tensor
    mask: Tensor | None = None
    quadrature_weights: Tensor | None = None
    edges: Tensor | None = None
    center: Tensor | None = None
    key: tuple | None = None
    shared: dict = field(default_factory=dict, compare=False, repr=False)

    def with_features(self, features: Features) -> "Tokens":
        """These tokens with other features."""
        return replace(self, features=features)

    def __add__(self, other: "Tokens") -> "Tokens":
        return self.with_features(tuple(a + b for a, b in zip(self.features, other.features, strict=True)))


def require_type(x: object, expected: FieldType) -> GeometricTensor:
    """Returns `x` if it is a geometric tensor of the expected type, and raises a TypeError otherwise."""
    if not isinstance(x, GeometricTensor):
        raise TypeError(f"expected an escnn.nn.GeometricTensor of type {expected}, got {type(x).__name__}")
    if x.type is not expected and x.type != expected:
        raise TypeError(f"expected a geometric tensor of type {expected}, got one of type {x.type}")
    return x


def to_tokens(
    x: GeometricTensor,
    layout: IsotypicLayout,
    domain: Domain,
    *,
    mask: Tensor | None = None,
    quadrature_weights: Tensor | None = None,
    edge_index: Tensor | None = None,
) -> Tokens:
    """Tokens of a geometric tensor: its isotypic features and positions, with padding mask, weights and graph.

    Args:
        x: grid (b, c, height, width), or points (points, c) with coords (points, 2).
        layout: of the type of x.
        domain: of x.
        mask: (b, height, width) or (points,) of bool, False for padding; what padding holds has no effect.
        quadrature_weights: quadrature weights of the shape of a mask, not negative.
        edge_index: (2, edges) indices of points, from key to query.

    Raises:
        ValueError: if an argument does not fit x, or coords are not finite.
    """
    edges = None if edge_index is None else domain.edges(edge_index, domain)
    keep = _padding(x, domain, mask)
    if quadrature_weights is not None:
        quadrature_weights = domain.spread(require_weights(x, quadrature_weights, mask)[:, None])[:, 0]
    if x.coords is None:
        return replace(grid_tokens(x.tensor, layout, keep), quadrature_weights=quadrature_weights)
    coords = x.coords.to(position_dtype(x.coords.dtype))
    if mask is not None:
        coords = coords.masked_fill(~mask[:, None], 0)
    if not torch.isfinite(coords).all():
        raise ValueError("expected finite coords, got NaN or infinity")
    features, positions = _isotypic(domain.spread(x.tensor), layout, keep), domain.spread(coords).mT
    if keep is None:
        center = positions.mean(dim=1, keepdim=True) if positions.shape[1] else positions.new_zeros(1, 1, 2)
        return Tokens(features, positions - center, None, quadrature_weights, edges, center)
    share = keep[..., None].to(positions.dtype)
    center = (positions * share).sum(1, keepdim=True) / share.sum(1, keepdim=True).clamp(min=1)
    return Tokens(features, (positions - center) * share, keep, quadrature_weights, edges, center)


def grid_tokens(x: Tensor, layout: IsotypicLayout, keep: Tensor | None = None) -> Tokens:
    """Tokens of a plain tensor (b, c, height, width), with a padding mask (b, height·width)."""
    height, width = x.shape[2:]
    positions = grid_positions(height, width).to(device=x.device, dtype=position_dtype(x.dtype))
    return Tokens(_isotypic(x.flatten(2), layout, keep), positions, keep, key=("grid", height, width))


def _isotypic(x: Tensor, layout: IsotypicLayout, keep: Tensor | None) -> Features:
    return layout.split(x if keep is None else x.masked_fill(~keep[:, None], 0))


def _padding(x: GeometricTensor, domain: Domain, mask: Tensor | None) -> Tensor | None:
    """The padding mask (b, t) that the user's mask and the unequal sizes of clouds make together."""
    if mask is None:
        if domain.slots is None:
            return None
        mask = torch.ones(x.shape[0], dtype=torch.bool, device=x.tensor.device)
    return domain.spread(require_mask(x, mask)[:, None])[:, 0]


def require_mask(x: GeometricTensor, mask: Tensor) -> Tensor:
    """Returns `mask` if it is a padding mask of x, and raises a TypeError or ValueError otherwise."""
    require_tensor(mask, "mask")
    expected = (x.shape[0], *x.shape[2:])
    if mask.shape != expected or mask.dtype != torch.bool:
        raise ValueError(f"expected a bool mask of shape {expected}, got {tuple(mask.shape)} of {mask.dtype}")
    return mask


def require_weights(x: GeometricTensor, weights: Tensor, mask: Tensor | None) -> Tensor:
    """Returns `weights`, zero for padding, if they are quadrature weights of x; raises a TypeError or ValueError otherwise."""
    require_tensor(weights, "weights")
    expected = (x.shape[0], *x.shape[2:])
    if weights.shape != expected or not weights.is_floating_point():
        raise ValueError(f"expected floating weights of shape {expected}, got {tuple(weights.shape)} of {weights.dtype}")
    if mask is not None:
        weights = weights.masked_fill(~mask, 0)
    if not (torch.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"expected finite weights that are not negative, got {float(weights.min())} to {float(weights.max())}")
    return weights


def disc_tokens(tokens: Tokens) -> Tokens:
    """The tokens of a grid whose centers are within its largest centerd disc."""
    assert tokens.key is not None
    _, height, width = tokens.key
    inside = inside_disc(height, width).to(tokens.positions.device)
    features = tuple(f.index_select(2, inside) for f in tokens.features)
    mask, weights = (
        None if part is None else part.index_select(1, inside) for part in (tokens.mask, tokens.quadrature_weights)
    )
    return Tokens(features, tokens.positions.index_select(1, inside), mask, weights, key=("disc", height, width))


def spaced(tokens: Tokens, spacing: float) -> Tokens:
    """Tokens of a grid with another distance between them."""
    if spacing == 1:
        return tokens
    if tokens.key is None or not spacing > 0:
        raise ValueError(f"expected a positive spacing, of a grid (points have coords instead), got {spacing}")
    return replace(tokens, positions=tokens.positions * spacing, key=("spaced", *tokens.key, spacing), shared={})


def centerd_as(context: Tokens, tokens: Tokens) -> Tokens:
    """Tokens with positions about the center of a context."""
    if tokens.center is None and context.center is None:
        return tokens
    shift = sum(sign * t.center for sign, t in ((1, tokens), (-1, context)) if t.center is not None)
    if context.mask is not None:  # nothing to be near to: tokens stay about their own center
        shift = shift * context.mask.any(dim=1)[:, None, None]
    positions = tokens.positions + shift
    if tokens.mask is not None:
        positions = positions.masked_fill(~tokens.mask[..., None], 0)
    return replace(tokens, positions=positions, key=None, shared={})


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
