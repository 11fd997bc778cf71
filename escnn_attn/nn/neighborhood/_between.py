"""What lies between two domains: the keys that queries may see, and the pairs that attend; both are cached there."""

import math
from collections.abc import Sequence

from escnn_attn.nn.neighborhood._patterns import AllPairs, AttentionPattern, Graph
from escnn_attn.nn.neighborhood.neighborhood import Disc, Neighborhood
from escnn_attn.tokens import Domain, Surroundings, surrounded


def surroundings(neighborhood: Neighborhood | None, query: Domain, key: Domain, everywhere: bool = False) -> Surroundings:
    """The keys that queries may attend to: on a periodic domain with their images as far as a neighborhood reaches.

    Args:
        neighborhood: of a layer; None for all pairs.
        query: domain of the tokens that attend.
        key: domain of the tokens attended to.
        everywhere: whether all pairs may attend on a periodic domain, as positions do not matter.

    Raises:
        ValueError: if one of the domains alone is periodic, or their cells differ; if all pairs of a periodic domain are to attend, or a
            neighborhood reaches half of the cell.
    """
    if query.cell is None and key.cell is None:
        return Surroundings(key, None)
    if query.cell is None or key.cell is None or not all(map(math.isclose, query.cell, key.cell)):
        raise ValueError(
            f"expected queries and keys in one periodic cell, or none in any, got {query.cell} and {key.cell} (width and height)"
        )
    if neighborhood is not None:
        reach = neighborhood.reach(*key.cell)
        if not 0 <= reach <= min(key.cell) / 2:
            raise ValueError(
                f"expected a reach from 0 to {min(key.cell) / 2:g}, half of the cell, from {neighborhood}, got {reach}"
            )
        return surrounded(key, reach)
    if everywhere:
        return Surroundings(key, None)
    raise ValueError(
        "all pairs of tokens cannot attend on a periodic domain, as a key has no one position relative to a query: take a "
        "neighborhood such as Disc(3.0), or position=NoPosition"
    )


def attention_pattern(neighborhood: Neighborhood | None, query: Domain, key: Domain) -> AttentionPattern:
    """The pairs of tokens that attend: along the graph of the query domain where it has one, or in a neighborhood, or all.

    The query domain caches it: layers with equal neighborhoods share it.

    Args:
        neighborhood: of a layer; None for all pairs.
        query: domain of the tokens that attend.
        key: domain of the tokens attended to.
    """

    def make() -> AttentionPattern:
        if query.edge_index is not None:
            return Graph(query, key, query.edge_index)
        return AllPairs(query, key) if neighborhood is None else neighborhood.pattern(query, key)

    return query.cached(("pattern", _hashable(neighborhood)), make, key)


def attention_patterns(
    neighborhood: Neighborhood | None, radii: Sequence[float | None], query: Domain, key: Domain
) -> list[AttentionPattern]:
    """The pattern of each group of heads: all pairs as far as their radii reach, or for all groups what a neighborhood or graph allows."""
    if neighborhood is None and query.edge_index is None and query.cell is None:
        return [attention_pattern(None if radius is None else Disc(radius), query, key) for radius in radii]
    return [attention_pattern(neighborhood, query, key)] * len(radii)


def _hashable(neighborhood: Neighborhood | None) -> object:
    """The neighborhood itself, so that equal ones share patterns, or its id where it cannot be hashed."""
    if neighborhood is None:  # whose hash older compilers do not know
        return None
    try:
        hash(neighborhood)
    except TypeError:
        return id(neighborhood)
    return neighborhood


def require_neighborhood(neighborhood: object) -> Neighborhood | None:
    """Returns a neighborhood or None, and raises a TypeError for anything else."""
    if neighborhood is None or isinstance(neighborhood, Neighborhood):
        return neighborhood
    raise TypeError(f"expected a neighborhood such as Disc(3.0) or KNearest(16), or None, got {neighborhood!r}")
