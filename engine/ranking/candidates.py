"""Candidates of a batch of queries: the index's answer to the session, joined with the live sources.

An item that may not be listed is no candidate: it is gone before anything is counted over the candidates.

Shapes: B queries, k index hits of each, d width, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.features.candidates import BACKFILL_BIT, ENTITY_BIT, FRIEND_BIT, Others
from engine.features.live import Askers
from engine.index.base import Hits, top_k
from engine.numeric.dense import cosines
from engine.ranking.asked import Asked
from engine.ranking.backfill import backfill
from engine.ranking.list_kernels import Asks, Listable, Wishes
from engine.ranking.moment import Moment
from engine.ranking.query import Query
from engine.ranking.ragged import Ragged, padded

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]

Search = Callable[[Floats, int], Hits]  # queries [B, d] and k -> the k best rows of each that may be shown to anybody


class Breadth(NamedTuple):
    """How many candidates the index and popularity propose for a query."""

    hits: int
    popular: int


def breadth_of(query: Query, history: int, config: RankingConfig) -> Breadth:
    """A query's own breadth, whatever it is answered together with; it doubles, so that few queries differ by it.

    Args:
        history: events kept of a user at most.
    """
    # Whatever a filter takes away, k must still be there: history and exclusions are the largest takers.
    needed = query.k + len(query.exclude_item_ids) + (history if query.exclude_history else 0)
    return Breadth(_doubled(config.index_candidates, needed), _doubled(config.popular_candidates, needed))


def hits_of(
    asked: Asked, vectors: Floats, search: Search, items: Floats, moment: Moment, breadths: Sequence[Breadth]
) -> tuple[Longs, Floats]:
    """[B, k] what the index finds, -1 where there is less, and [B] the score that an item needs to be found by it.

    Args:
        vectors: [B, d] the encoded sessions.
        items: [N, d] embeddings.
    """
    widths = {breadth.hits for breadth in breadths}
    if len(widths) == 1 and all(filter_.members is None for filter_ in asked.filters):
        hits = search(vectors, *widths)
        return hits.row, hits.score[:, -1].copy()
    index = np.full((len(asked), max(widths)), -1, np.int64)
    floor = np.full(len(asked), -np.inf, np.float32)
    for k in widths:
        at = [b for b, breadth in enumerate(breadths) if breadth.hits == k and asked.filters[b].members is None]
        if at:
            hits = search(vectors[at], k)
            index[at, :k], floor[at] = hits.row, hits.score[:, -1]
    for b, filter_ in enumerate(asked.filters):
        if filter_.members is not None:
            members = filter_.members[moment.may(filter_.members)]  # As in the index: others take no place.
            found, floor[b] = _within(members, vectors[b], items, breadths[b].hits)
            index[b, : len(found)] = found
    return index, floor


def asks_of(asked: Asked, popular: Longs, clock_ms: int, rest: Sequence[Longs] | None = None) -> Asks:
    """B queries as compiled code takes them.

    Args:
        popular: [B] how many of the popular items each query has.
        clock_ms: event time of the newest event.
        rest: of each query, what else fills up its list.
    """
    wishes = Wishes(
        popular,
        np.array([query.exclude_history for query in asked.queries], np.bool_),
        *Ragged.of([filter_.excluded for filter_ in asked.filters]),
        *Ragged.of([() if filter_.members is None else filter_.members for filter_ in asked.filters]),
        np.array([filter_.members is not None for filter_ in asked.filters], np.bool_),
        *Ragged.of(asked.related.hidden or [()] * len(asked)),
    )
    return Asks(Askers.of(asked.users, asked.history, clock_ms, asked.clock_ms), wishes, _others(asked, rest))


def _others(asked: Asked, rest: Sequence[Longs] | None) -> Others:
    """The items that relations propose, and those that fill up short lists."""
    proposed = [*zip(asked.related.proposed, (FRIEND_BIT, ENTITY_BIT), strict=False)]
    if rest is not None:
        proposed.append((padded(rest), BACKFILL_BIT))
    if not proposed:
        return Others.none(len(asked))
    bits = [np.full(rows.shape[1], bit) for rows, bit in proposed]
    return Others(np.concatenate([rows for rows, _ in proposed], axis=1), np.concatenate(bits))


def fill_up(asked: Asked, listable: Listable, floor: Floats, moment: Moment) -> list[Longs] | None:
    """Of each query, what else may fill up its list; None where no list is short.

    Where the index has given all that it has, there are no others, unless some have become available right now.
    """
    lacking = [
        0 if at_least == -np.inf and moment.settled else max(0, query.k - count)
        for query, count, at_least in zip(asked.queries, listable.size.tolist(), floor.tolist(), strict=True)
    ]
    if not any(lacking):
        return None
    hidden = [listable.hidden[slice(*span)] for span in pairwise(listable.first.tolist())]
    looked = [np.concatenate([listable.row[b], hidden[b]]) for b in range(len(asked))]
    return [backfill(asked, b, moment, looked[b], lacking[b]) for b in range(len(asked))]


def _doubled(least: int, needed: int) -> int:
    """`least`, doubled as often as it takes to reach `needed`."""
    while least < needed:
        least *= 2
    return least


def _within(rows: Longs, vector: Floats, items: Floats, k: int) -> tuple[Longs, float]:
    """The k best of `rows` by exact search, and the score of the last; -inf where there are fewer.

    An index can't see through a narrow filter.
    """
    found = top_k(rows, cosines(items, rows[None], vector[None]), min(k, len(rows)))
    return found.row[0], float(found.score[0, -1]) if 0 < len(rows) >= k else -np.inf
