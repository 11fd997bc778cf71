"""Attention to discs on a grid, by a mask over all keys."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from escnn_attn.functional import attend, distances
from escnn_attn.modes import keepable, plain_operations
from escnn_attn.nn.neighborhood._patterns import AttentionPattern, BiasFn, add_terms, repeat_keys
from escnn_attn.tokens import Domain

#: largest number of elements of a temporary: copies of keys, or pairs of a mask, of one band of queries
BAND = 2**21
#: largest number of pairs of a mask that is kept
KEPT = 2**24


class Discs(AttentionPattern):
    """Base class: discs on a grid.

    Args:
        query: a grid.
        key: the same grid, perhaps with another mask and other weights, or with the same number of rows and columns more on all sides.
        radius: of the discs, in the units of the positions.
    """

    def __init__(self, query: Domain, key: Domain, radius: float) -> None:
        super().__init__(query, key)
        self.distance = self.radius = radius

    def allowed(self) -> Tensor:
        return self._near(self.x_query)

    def _near(self, x: Tensor) -> Tensor:
        """Keys (b or 1, 1, t, s) in the discs of queries at positions (1, t, 2)."""
        disc = (distances(x, self.x_key) <= self.radius)[:, None]
        return disc if self.keep is None else disc & self.keep[:, None, None]


class WideDiscs(Discs):
    """Discs by a mask over all keys: all at once, or in wide grids a band of queries at a time."""

    def __init__(self, query: Domain, key: Domain, radius: float) -> None:
        super().__init__(query, key, radius)
        self._masks: dict[int, Tensor] = {}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        if self.keep is None and keepable() and self.x_query.shape[1] * self.x_key.shape[1] * copies <= KEPT:
            terms = repeat_keys(self.key_logits(bias, self.x_query), copies)
            return attend(q, k, v, scale, None, add_terms(self._kept_mask(copies), terms))

        def of_band(part: Tensor, x: Tensor) -> Tensor:
            keep, logits = (repeat_keys(term, copies) for term in (self._near(x), self.key_logits(bias, x)))
            return attend(part, k, v, scale, keep, logits)

        pairs = q.shape[0] * k.shape[2]
        bands = [*zip(_bands(q, 2, pairs), _bands(self.x_query, 1, pairs), strict=True)]
        # computed again for the gradient, for which the masks of all bands would be kept, tokens² numbers
        again = torch.is_grad_enabled() and len(bands) > 1
        out = [checkpoint(of_band, *band, use_reentrant=False) if again else of_band(*band) for band in bands]
        return torch.cat(out, dim=2)

    def _kept_mask(self, copies: int) -> Tensor:
        """The mask as logits, which all layers share: torch would keep one made of booleans for each call."""
        if copies not in self._masks:
            with torch.inference_mode(False):  # or no later call could keep it for its gradient
                near = repeat_keys(self._near(self.x_query), copies)
                self._masks[copies] = torch.zeros_like(near, dtype=self.x_key.dtype).masked_fill_(~near, -torch.inf)
        return self._masks[copies]

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        return torch.cat([self._near(x).any(dim=-1)[:, 0] for x in _bands(self.x_query, 1, self.keep.numel())], dim=1)


def _bands(x: Tensor, dim: int, pairs: int) -> Sequence[Tensor]:
    """Bands of queries, of `pairs` pairs with keys for each query; all at once for compilers, which keep sizes open."""
    return [x] if plain_operations() else x.split(max(1, BAND // max(1, pairs)), dim=dim)
