"""Attention to discs on a grid, tile by tile."""

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from escnn_attn.functional import attend, distances
from escnn_attn.modes import plain_operations
from escnn_attn.nn.neighborhood._patterns import AttentionPattern, BiasFn, add_terms, repeat_keys
from escnn_attn.tokens import Domain, Lattice, positions_tensor

#: largest number of elements of a temporary: copies of keys, or pairs of a mask, of one band of queries
BAND = 2**21


def disc_pattern(query: Domain, key: Domain, radius: float) -> AttentionPattern:
    """Attention to discs of a radius on one grid: by tiles, or by a mask over all pairs for discs of the order of the grid."""
    tiles = Tiles(query, key, radius)
    pairs = tiles.rows * tiles.columns * tiles.side**2 * tiles.window**2
    return tiles if 2 * pairs < (tiles.height * tiles.width) ** 2 else WideDiscs(query, key, radius)


class Discs(AttentionPattern):
    """Base class: discs on a grid.

    Args:
        query: a grid.
        key: the same grid, perhaps with another mask and other weights.
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
    """Discs by a mask over all keys, a band of queries at a time."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        out, pairs = [], q.shape[0] * k.shape[2]
        for part, x in zip(_bands(q, 2, pairs), _bands(self.x_query, 1, pairs), strict=True):
            keep, logits = (repeat_keys(term, copies) for term in (self._near(x), self.key_logits(bias, x)))
            out.append(attend(part, k, v, scale, keep, logits))
        return torch.cat(out, dim=2)

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        return torch.cat([self._near(x).any(dim=-1)[:, 0] for x in _bands(self.x_query, 1, self.keep.numel())], dim=1)


class Tiles(Discs):
    """Discs by tiles: a square tile of queries attends to a window of keys around it, masked to the disc of each query.

    Time and memory are linear in the pixels. Tiles are `side` wide, windows wider by a `halo` on each side; `rows` × `columns`
    tiles cover the grid.
    """

    def __init__(self, query: Domain, key: Domain, radius: float) -> None:
        super().__init__(query, key, radius)
        assert key.lattice is not None
        self.height, self.width, self.spacing, _ = key.lattice
        longest = max(self.height, self.width)
        self.halo = min(int(radius / self.spacing), longest - 1)
        self.side = min(max(4, 2 * self.halo + 2), longest)
        self.window = self.side + 2 * self.halo
        self.rows, self.columns = -(-self.height // self.side), -(-self.width // self.side)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        logits = self._window_logits(bias)
        rows = self._rows_per_band(k, copies)
        queries, keys, values = self._bands(q, rows, 0), self._bands(k, rows, self.halo), self._bands(v, rows, self.halo)
        out = []
        for band, (query, key, value) in enumerate(zip(queries, keys, values, strict=True)):
            tiles = slice(band * rows * self.columns, (band + 1) * rows * self.columns)
            query, key, value = self._tiles(query, self.side), self._tiles(key, self.window), self._tiles(value, self.window)
            keep = _per_tile(self.exists[:, tiles] & self.disc, query, copies)
            added = None if logits is None else _per_tile(logits if logits.shape[1] == 1 else logits[:, tiles], query, copies)
            mixed = attend(_stacked(query), _stacked(key, copies), _stacked(value, copies), scale, keep, added)
            out.append(self._untile(mixed, len(query)))
        return torch.cat(out, dim=2)[:, :, : self.height, : self.width].flatten(2, 3)

    @cached_property
    def disc(self) -> Tensor:
        """Keys of the window of any tile that are in the disc of a query, bool (queries of a tile, keys of a window)."""
        query, key = self._tile_positions()
        return distances(query, key)[0] <= self.radius

    @cached_property
    def exists(self) -> Tensor:
        """Keys of the windows to attend to at all, bool (b or 1, tiles, 1, 1, keys of a window)."""
        everywhere = torch.ones(1, self.height * self.width, dtype=torch.bool, device=self.x_key.device)
        return self._of_keys(everywhere if self.keep is None else self.keep)

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        dtype = self.x_key.dtype
        counts = self.exists[:, :, 0].to(dtype) @ self.disc.to(dtype).T  # keys in the disc of each query
        any_key = rearrange(counts, "b tile 1 query -> (b tile) 1 query 1") > 0
        return self._untile(any_key, len(self.keep))[:, 0, : self.height, : self.width, 0].flatten(1)

    def _window_logits(self, bias: BiasFn) -> Tensor | None:
        """Bias and log-weights (b or 1, tiles or 1, h or 1, queries of a tile or 1, keys of a window)."""
        logits = bias(*self._tile_positions())
        logits = None if logits is None else logits[:, None]
        return logits if self.log_weights is None else add_terms(logits, self._of_keys(self.log_weights))

    def _tile_positions(self) -> tuple[Tensor, Tensor]:
        """Positions (1, t, 2) of the queries of any tile and (1, s, 2) of the keys of its window."""
        query, key = (
            positions_tensor(Lattice(n, n, self.spacing), dtype=self.x_key.dtype, device=self.x_key.device)[None]
            for n in (self.side, self.window)
        )
        return query, key

    def _of_keys(self, x: Tensor) -> Tensor:
        """Numbers of the keys (b, s), for each window: (b, tiles, 1, 1, keys of a window)."""
        (band,) = self._bands(x[:, None, :, None], self.rows, self.halo)
        return rearrange(self._tiles(band, self.window), "b tile 1 y x 1 -> b tile 1 1 (y x)")

    def _rows_per_band(self, k: Tensor, copies: int) -> int:
        """Number of rows of tiles in a band, so that temporaries stay in the cache; all for compilers, whatever the batch."""
        if plain_operations():
            return self.rows
        row = self.columns * len(k) * copies * self.window**2 * max(k.shape[1] * k.shape[3], self.side**2)
        return min(self.rows, max(1, BAND // row))

    def _bands(self, x: Tensor, rows: int, halo: int) -> list[Tensor]:
        """Tokens (b, h, s·copies, w) as bands of `rows` rows of tiles, (b, h, y, x, copies·w), padded by a halo and to whole tiles."""
        x = x.unflatten(2, (self.height, self.width, -1)).flatten(4)
        right, below = self.columns * self.side - self.width, self.rows * self.side - self.height
        blocks = F.pad(x, (0, 0, halo, halo + right, 0, below)).split(rows * self.side, dim=2)
        if halo == 0:
            return list(blocks)
        edge = torch.zeros_like(blocks[0][:, :, :1]).expand(-1, -1, halo, -1, -1)
        above = [edge, *(block[:, :, -halo:] for block in blocks[:-1])]
        under = [*(block[:, :, :halo] for block in blocks[1:]), edge]
        return [torch.cat(parts, dim=2) for parts in zip(above, blocks, under, strict=True)]

    def _tiles(self, band: Tensor, size: int) -> Tensor:
        """A band (b, h, y, x, w) as squares of a size around each tile, (b, tiles, h, size, size, w)."""
        squares = band.unfold(2, size, self.side).unfold(3, size, self.side)
        return rearrange(squares, "b h row column w y x -> b (row column) h y x w")

    def _untile(self, x: Tensor, batch: int) -> Tensor:
        """Queries of tiles (b·tiles, h, side², w) as a band (b, h, y, x, w)."""
        names = "(b row column) h (y x) w -> b h (row y) (column x) w"
        return rearrange(x, names, b=batch, column=self.columns, y=self.side)


def _bands(x: Tensor, dim: int, pairs: int) -> Sequence[Tensor]:
    """Bands of queries, of `pairs` pairs with keys for each query; all at once for compilers, which keep sizes open."""
    return [x] if plain_operations() else x.split(max(1, BAND // max(1, pairs)), dim=dim)


def _stacked(squares: Tensor, copies: int = 1) -> Tensor:
    """Squares of tokens (b, tiles, h, y, x, copies·w) as samples of one attention call, (b·tiles, h, y·x·copies, w)."""
    return rearrange(squares, "b tile h y x (copy w) -> (b tile) h (y x copy) w", copy=copies)


def _per_tile(term: Tensor, query: Tensor, copies: int) -> Tensor:
    """Terms of logits (b or 1, tiles or 1, h or 1, t or 1, s) for each tile of the queries, (b·tiles, h or 1, t or 1, s·copies)."""
    term = term if term.shape[-1] == 1 else term.repeat_interleave(copies, -1)
    return term.expand(*query.shape[:2], *term.shape[2:]).flatten(0, 1)
