"""Attention to discs on a grid, tile by tile."""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from escnn_attn.domains import grid_positions
from escnn_attn.functional import attend, distances
from escnn_attn.patterns import AttentionPattern, Bias, add_terms, repeat_keys
from escnn_attn.tokens import Tokens

#: numbers in the copies of keys that one band of tiles makes
BAND = 2**21


class Tiles(AttentionPattern):
    """Discs on a grid: square tiles of queries meet the keys of a window around them, of which a mask keeps the discs.

    Time and memory are linear in the pixels.

    Args:
        query: tokens of a grid.
        context: tokens of the same grid.
        radius: of the discs, in token spacings.
    """

    def __init__(self, query: Tokens, context: Tokens, radius: float) -> None:
        super().__init__(query, context)
        assert context.key is not None
        assert query.key == context.key
        _, self.height, self.width = context.key
        self.distance = self.radius = radius
        self.halo = int(radius)
        self.side = min(max(4, 2 * self.halo + 2), max(self.height, self.width))
        self.rows, self.columns = -(-self.height // self.side), -(-self.width // self.side)

    @cached_property
    def near(self) -> Tensor:
        """Keys of the windows (b or 1, tiles, 1, queries of a tile, keys of a window) that are in the disc of a query."""
        exists = self.x_key.new_ones(1, self.height * self.width, dtype=torch.bool) if self.keep is None else self.keep
        query, key = self._tile_positions()
        return self._of_keys(exists) & (distances(query, key)[0] <= self.radius)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        batch, copies = q.shape[0], k.shape[2] // (self.height * self.width)
        logits = bias(*self._tile_positions())
        logits = None if logits is None else logits[:, None]
        if self.log_weight is not None:
            logits = add_terms(logits, self._of_keys(self.log_weight))
        # in bands of rows of tiles: their copies of keys and values stay small enough to be reused
        window = self.columns * (self.side + 2 * self.halo) ** 2 * batch * copies * k.shape[1] * k.shape[3]
        rows = min(self.rows, max(1, BAND // max(1, window)))
        bands = zip(self._bands(q, rows, 0), self._bands(k, rows, self.halo), self._bands(v, rows, self.halo), strict=True)
        out = []
        for index, (query, key, value) in enumerate(bands):
            tiles = slice(index * rows * self.columns, (index + 1) * rows * self.columns)
            terms = (repeat_keys(t if t is None or t.shape[1] == 1 else t[:, tiles], copies) for t in (self.near, logits))
            query, key, value = (
                self._tiles(query, self.side),
                self._tiles(key, copies=copies),
                self._tiles(value, copies=copies),
            )
            keep, added = (t if t is None else t.expand(*query.shape[:2], *t.shape[2:]).flatten(0, 1) for t in terms)
            mixed = attend(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), scale, keep, added)
            out.append(self._untile(mixed, batch))
        return torch.cat(out, dim=2)[:, :, : self.height, : self.width].flatten(2, 3)

    def allowed(self) -> Tensor:
        disc = (distances(self.x_query, self.x_key) <= self.radius)[:, None]
        return disc if self.keep is None else disc & self.keep[:, None, None]

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        any_key = self.near.any(dim=-1)[..., None].flatten(0, 1)
        return self._untile(any_key, self.near.shape[0])[:, 0, : self.height, : self.width, 0].flatten(1)

    def _tile_positions(self) -> tuple[Tensor, Tensor]:
        """Positions (1, t, 2) of the queries of any tile and (1, s, 2) of the keys of its window."""
        query, key = (grid_positions(n, n).to(self.x_key) for n in (self.side, self.side + 2 * self.halo))
        return query, key

    def _of_keys(self, x: Tensor) -> Tensor:
        """Something of the keys (b, s), for each window: (b, tiles, 1, 1, keys of a window)."""
        (band,) = self._bands(x[:, None, :, None], self.rows, self.halo)
        return self._tiles(band)[..., 0][:, :, :, None]

    def _bands(self, x: Tensor, rows: int, halo: int) -> list[Tensor]:
        """Tokens (b, h, s·e, w) as bands of `rows` rows of tiles, (b, h, y, x, e·w), with a halo, and zeros beyond the grid."""
        x = x.unflatten(2, (self.height, self.width, -1)).flatten(4)
        right, below = self.columns * self.side - self.width, self.rows * self.side - self.height
        blocks = F.pad(x, (0, 0, halo, halo + right, 0, below)).split(rows * self.side, dim=2)
        if halo == 0:
            return list(blocks)
        edge = torch.zeros_like(blocks[0][:, :, :1]).expand(-1, -1, halo, -1, -1)
        above = [edge, *(block[:, :, -halo:] for block in blocks[:-1])]
        under = [*(block[:, :, :halo] for block in blocks[1:]), edge]
        return [torch.cat(parts, dim=2) for parts in zip(above, blocks, under, strict=True)]

    def _tiles(self, band: Tensor, window: int | None = None, copies: int = 1) -> Tensor:
        """A band (b, h, y, x, e·w) as (b, tiles, h, window²·e, w): tiles, or by default the windows around them."""
        window = self.side + 2 * self.halo if window is None else window
        x = band.unfold(2, window, self.side).unfold(3, window, self.side).unflatten(4, (copies, -1))
        return x.permute(0, 2, 3, 1, 6, 7, 4, 5).flatten(4, 6).flatten(1, 2)

    def _untile(self, x: Tensor, batch: int) -> Tensor:
        """Queries of tiles (b·tiles, h, side², w) as a band (b, h, y, x, w)."""
        x = x.unflatten(0, (batch, -1, self.columns)).unflatten(4, (self.side, self.side))
        return x.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
