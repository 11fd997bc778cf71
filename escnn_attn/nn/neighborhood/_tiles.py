"""Attention to discs on a grid, tile by tile."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from escnn_attn.functional import attend, distances, squares
from escnn_attn.modes import fixed, plain_operations
from escnn_attn.nn.neighborhood._discs import BAND, Discs, WideDiscs
from escnn_attn.nn.neighborhood._patterns import AttentionPattern, BiasFn, add_terms, repeat_keys
from escnn_attn.tokens import Domain, Grid, Lattice, positions_tensor


def disc_pattern(query: Domain, key: Domain, radius: float) -> AttentionPattern:
    """Attention to discs of a radius on one grid: by tiles, or by a mask over all pairs for discs of the order of the grid."""
    if isinstance(query, Grid) and isinstance(key, Grid) and query.cut:
        tiles = CutDiscs(query, key, radius)
    else:
        tiles = Tiles(query, key, radius)
    return tiles if 4 * tiles.cost < 3 * tiles.pairs else WideDiscs(query, key, radius)


def margin_of(query: Lattice | None, key: Lattice | None) -> int | None:
    """How many rows and columns of keys there are beyond the queries, on each side; None where that is not the same for all sides."""
    if query is not None and query == key:
        return 0
    if query is None or key is None or query.disc or key.disc or query.spacing != key.spacing:
        return None
    rows, columns = key.height - query.height, key.width - query.width
    return rows // 2 if rows == columns and rows >= 0 and rows % 2 == 0 else None


@fixed
@lru_cache(maxsize=256)
def tile_side(height: int, width: int, halo: int) -> tuple[int, float]:
    """Side of the square tiles that cost least on a grid, with a halo around each, and that cost.

    In pairs of a query and a key, those of small tiles counted more, as each tile copies its window (about as measured on CPUs).
    """

    def cost(side: int) -> float:
        queries = -(-height // side) * -(-width // side) * side**2
        return queries * (side + 2 * halo) ** 2 * (1 + 60 / side**2)

    longest = max(height, width)
    # no smaller than the halo, so that a row of tiles has all that the next one needs
    sides = [-(-longest // count) for count in range(1, max(1, longest // max(4, halo)) + 1)]
    best = min(sides, key=cost)
    return best, cost(best)


class CutDiscs(AttentionPattern):
    """Discs on the tokens within the largest disc of a grid: by tiles of the whole grid, whose other tokens are no keys.

    Args:
        query: a grid cut to its largest disc.
        key: the same grid, perhaps with another mask and other weights.
        radius: of the discs, in the units of the positions.
    """

    def __init__(self, query: Grid, key: Grid, radius: float) -> None:
        super().__init__(query, key)
        assert query.index is not None
        self.index, self.tokens, self.distance = query.index, query.height * query.width, radius
        self.whole = Tiles(query.whole(), key.whole(), radius)
        # not by the numbers of tokens, which compilers keep open
        self.cost, self.pairs = self.whole.cost, (math.pi / 4 * min(query.height, query.width) ** 2) ** 2

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        queries, keys, values = self._placed(q, 1), self._placed(k, copies), self._placed(v, copies)
        return self.whole.attend(queries, keys, values, scale, bias, copies).index_select(2, self.index)

    def allowed(self) -> Tensor | None:
        pairs = self.whole.allowed()
        return None if pairs is None else pairs.index_select(2, self.index).index_select(3, self.index)

    def reached(self) -> Tensor | None:
        reached = self.whole.reached()
        return None if reached is None else reached.index_select(1, self.index)

    def _placed(self, x: Tensor, copies: int) -> Tensor:
        """Tokens (b, h, s·copies, w) at their places in the whole grid."""
        x = x.unflatten(2, (-1, copies))
        return x.new_zeros(*x.shape[:2], self.tokens, *x.shape[3:]).index_copy(2, self.index, x).flatten(2, 3)


class Tiles(Discs):
    """Discs by tiles: a square tile of queries attends to a window of keys around it, masked to the disc of each query.

    Time and memory are linear in the pixels. Tiles are `side` wide, windows wider by a `halo` on each side; `rows` × `columns`
    tiles cover the queries.
    """

    def __init__(self, query: Domain, key: Domain, radius: float) -> None:
        super().__init__(query, key, radius)
        margin = margin_of(query.lattice, key.lattice)
        assert query.lattice is not None
        assert margin is not None
        self.height, self.width, self.spacing, _ = query.lattice
        self.key_height, self.key_width = self.height + 2 * margin, self.width + 2 * margin
        longest = max(self.height, self.width)
        self.halo = min(int(radius / self.spacing), longest - 1 + margin)
        self.side, self.cost = tile_side(self.height, self.width, self.halo)
        self.pairs = self.height * self.width * self.key_height * self.key_width
        self.window = self.side + 2 * self.halo
        self.rows, self.columns = -(-self.height // self.side), -(-self.width // self.side)
        self._disc: Tensor | None = None
        self._exists: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: BiasFn, copies: int = 1) -> Tensor:
        logits = self._window_logits(bias)
        rows = self._rows_per_band(k, copies)
        queries, keys, values = self._bands(q, rows), self._key_bands(k, rows), self._key_bands(v, rows)
        out = []
        for band, (query, key, value) in enumerate(zip(queries, keys, values, strict=True)):
            tiles = slice(band * rows * self.columns, (band + 1) * rows * self.columns)
            query, key, value = self._tiles(query, self.side), self._tiles(key, self.window), self._tiles(value, self.window)
            keep = _per_tile(self.exists[:, tiles] & self.disc, query, copies)
            added = None if logits is None else _per_tile(logits if logits.shape[1] == 1 else logits[:, tiles], query, copies)
            mixed = attend(_stacked(query), _stacked(key, copies), _stacked(value, copies), scale, keep, added)
            out.append(self._untile(mixed, query.shape[0]))
        return torch.cat(out, dim=2)[:, :, : self.height, : self.width].flatten(2, 3)

    @property
    def disc(self) -> Tensor:
        """Keys of the window of any tile that are in the disc of a query, bool (queries of a tile, keys of a window)."""
        if self._disc is None:  # not a cached_property, whose lock compilers do not take
            query, key = self._tile_positions()
            self._disc = distances(query, key)[0] <= self.radius
        return self._disc

    @property
    def exists(self) -> Tensor:
        """Keys of the windows to attend to at all, bool (b or 1, tiles, 1, 1, keys of a window)."""
        if self._exists is None:
            self._exists = self._existing()
        return self._exists

    def _existing(self) -> Tensor:
        everywhere = torch.ones(1, self.key_height * self.key_width, dtype=torch.bool, device=self.x_key.device)
        return self._of_keys(everywhere if self.keep is None else self.keep)

    def reached(self) -> Tensor | None:
        if self.keep is None:
            return None
        dtype = self.x_key.dtype
        counts = self.exists[:, :, 0].to(dtype) @ self.disc.to(dtype).T  # keys in the disc of each query
        any_key = rearrange(counts, "b tile 1 query -> (b tile) 1 query 1") > 0
        return self._untile(any_key, self.keep.shape[0])[:, 0, : self.height, : self.width, 0].flatten(1)

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
        (band,) = self._key_bands(x[:, None, :, None], self.rows)
        return rearrange(self._tiles(band, self.window), "b tile 1 y x 1 -> b tile 1 1 (y x)")

    def _rows_per_band(self, k: Tensor, copies: int) -> int:
        """Number of rows of tiles in a band, so that temporaries stay in the cache; all for compilers, whatever the batch."""
        if plain_operations():
            return self.rows
        row = self.columns * len(k) * copies * self.window**2 * max(k.shape[1] * k.shape[3], self.side**2)
        return min(self.rows, max(1, BAND // row))

    def _bands(self, q: Tensor, rows: int) -> Sequence[Tensor]:
        """Queries (b, h, t, w) as bands of `rows` rows of tiles, (b, h, y, x, w), padded to whole tiles."""
        right, below = self.columns * self.side - self.width, self.rows * self.side - self.height
        q = q.unflatten(2, (self.height, self.width))
        return F.pad(q, (0, 0, 0, right, 0, below)).split(rows * self.side, dim=2)

    def _key_bands(self, x: Tensor, rows: int) -> list[Tensor]:
        """Keys (b, h, s·copies, w) as those bands with a halo, (b, h, y, x, copies·w); zero where there are none."""
        x = x.unflatten(2, (self.key_height, self.key_width, -1)).flatten(4)
        before = self.halo - (self.key_height - self.height) // 2
        right = self.columns * self.side + 2 * self.halo - self.key_width - before
        below = self.rows * self.side + 2 * self.halo - self.key_height - before
        x, step = F.pad(x, (0, 0, before, right, before, below)), rows * self.side
        if self.halo == 0:
            return list(x.split(step, dim=2))
        above, *blocks = x.split([self.halo, *self._heights(step), self.halo], dim=2)
        # not as slices of x, as the gradient of each would be as large as x
        *blocks, under = blocks
        tops = [above, *(block[:, :, -self.halo :] for block in blocks[:-1])]
        bottoms = [*(block[:, :, : self.halo] for block in blocks[1:]), under]
        return [torch.cat(parts, dim=2) for parts in zip(tops, blocks, bottoms, strict=True)]

    def _heights(self, step: int) -> list[int]:
        """Heights of bands of queries in pixels, `step` but for the last."""
        height = self.rows * self.side
        return [min(step, height - start) for start in range(0, height, step)]

    def _tiles(self, band: Tensor, size: int) -> Tensor:
        """A band (b, h, y, x, w) as squares of a size around each tile, (b, tiles, h, size, size, w)."""
        return squares(band, size, self.side).flatten(1, 2)

    def _untile(self, x: Tensor, batch: int) -> Tensor:
        """Queries of tiles (b·tiles, h, side², w) as a band (b, h, y, x, w)."""
        names = "(b row column) h (y x) w -> b h (row y) (column x) w"
        return rearrange(x, names, b=batch, column=self.columns, y=self.side)


def _stacked(squares: Tensor, copies: int = 1) -> Tensor:
    """Squares of tokens (b, tiles, h, y, x, copies·w) as samples of one attention call, (b·tiles, h, y·x·copies, w)."""
    return rearrange(squares, "b tile h y x (copy w) -> (b tile) h (y x copy) w", copy=copies)


def _per_tile(term: Tensor, query: Tensor, copies: int) -> Tensor:
    """Terms of logits (b or 1, tiles or 1, h or 1, t or 1, s) for each tile of the queries, (b·tiles, h or 1, t or 1, s·copies)."""
    term = repeat_keys(term, copies)
    return term.expand(*query.shape[:2], *term.shape[2:]).flatten(0, 1)
