"""Attention to discs on a grid, tile by tile."""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from escnn_attn.functional.attention import attend, distances
from escnn_attn.nn.neighborhood._patterns import AttentionPattern, Bias, add_terms, bias_of, repeat_keys
from escnn_attn.tokens.domains import grid_positions
from escnn_attn.tokens.tokens import Tokens

#: numbers that what attention makes of one band of tokens may hold: copies of keys, or pairs of a mask
BAND = 2**21


def disc_pattern(query: Tokens, context: Tokens, radius: float) -> AttentionPattern:
    """Attention to discs of a radius on one grid: tile by tile, or, for discs of the order of the grid, to all pairs in them."""
    tiles = Tiles(query, context, radius)
    met = tiles.rows * tiles.columns * tiles.side**2 * (tiles.side + 2 * tiles.halo) ** 2
    return tiles if 2 * met < (tiles.height * tiles.width) ** 2 else WideDiscs(query, context, radius)


class Discs(AttentionPattern):
    """Base class: discs on a grid.

    Args:
        query: tokens of a grid.
        context: tokens of the same grid.
        radius: of the discs, in token spacings.
    """

    def __init__(self, query: Tokens, context: Tokens, radius: float) -> None:
        super().__init__(query, context)
        self.distance = self.radius = radius

    def allowed(self) -> Tensor:
        return self._near(self.x_query)

    def _near(self, x: Tensor) -> Tensor:
        """Keys (b or 1, 1, t, s) in the discs of queries at positions (1, t, 2)."""
        disc = (distances(x, self.x_key) <= self.radius)[:, None]
        return disc if self.keep is None else disc & self.keep[:, None, None]


class WideDiscs(Discs):
    """Discs by a mask over all keys, a band of queries at a time."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        copies = k.shape[2] // self.x_key.shape[1]
        out, rows = [], max(1, BAND // (q.shape[0] * k.shape[2]))
        for part, x in zip(q.split(rows, dim=2), self.x_query.split(rows, dim=1), strict=True):
            keep, logits = (repeat_keys(term, copies) for term in (self._near(x), self.dense_bias(bias, x)))
            out.append(attend(part, k, v, scale, keep, logits))
        return torch.cat(out, dim=2)

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        rows = max(1, BAND // self.keep.numel())
        return torch.cat([self._near(x).any(dim=-1)[:, 0] for x in self.x_query.split(rows, dim=1)], dim=1)


class Tiles(Discs):
    """Discs by tiles: square tiles of queries meet the keys of a window around them, of which a mask keeps the discs.

    Time and memory are linear in the pixels.
    """

    def __init__(self, query: Tokens, context: Tokens, radius: float) -> None:
        super().__init__(query, context, radius)
        assert context.key is not None
        assert query.key == context.key
        _, self.height, self.width = context.key
        longest = max(self.height, self.width)
        self.halo = min(int(radius), longest - 1)
        self.side = min(max(4, 2 * self.halo + 2), longest)
        self.rows, self.columns = -(-self.height // self.side), -(-self.width // self.side)

    @cached_property
    def disc(self) -> Tensor:
        """Keys of the window of any tile that are in the disc of a query, bool (queries of a tile, keys of a window)."""
        query, key = self._tile_positions()
        return distances(query, key)[0] <= self.radius

    @cached_property
    def exists(self) -> Tensor:
        """Keys of the windows to attend to at all, bool (b or 1, tiles, 1, 1, keys of a window)."""
        everywhere = self.x_key.new_ones(1, self.height * self.width, dtype=torch.bool)
        return self._of_keys(everywhere if self.keep is None else self.keep)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Bias) -> Tensor:
        batch, copies = q.shape[0], k.shape[2] // (self.height * self.width)
        logits = bias_of(bias, *self._tile_positions())
        logits = None if logits is None else logits[:, None]
        if self.log_weight is not None:
            logits = add_terms(logits, self._of_keys(self.log_weight))
        # in bands of rows of tiles, so that what is made of them stays small enough to be reused
        row = self.columns * batch * copies * self.disc.shape[1] * max(k.shape[1] * k.shape[3], len(self.disc))
        rows = min(self.rows, max(1, BAND // row))
        bands = zip(self._bands(q, rows, 0), self._bands(k, rows, self.halo), self._bands(v, rows, self.halo), strict=True)
        out = []
        for index, (query, key, value) in enumerate(bands):
            tiles = slice(index * rows * self.columns, (index + 1) * rows * self.columns)
            query = self._tiles(query, self.side)
            key, value = (self._tiles(x, copies=copies) for x in (key, value))
            added = logits if logits is None or logits.shape[1] == 1 else logits[:, tiles]
            terms = (repeat_keys(t, copies) for t in (self.exists[:, tiles] & self.disc, added))
            keep, added = (t if t is None else t.expand(*query.shape[:2], *t.shape[2:]).flatten(0, 1) for t in terms)
            mixed = attend(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), scale, keep, added)
            out.append(self._untile(mixed, batch))
        return torch.cat(out, dim=2)[:, :, : self.height, : self.width].flatten(2, 3)

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        counts = self.exists[:, :, 0].to(self.x_key) @ self.disc.to(self.x_key).T  # keys in the disc of each query
        any_key = counts.mT[:, :, None].flatten(0, 1) > 0
        return self._untile(any_key, self.keep.shape[0])[:, 0, : self.height, : self.width, 0].flatten(1)

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
