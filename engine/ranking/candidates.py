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
from engine.features.candidates import (
    BACKFILL_BIT,
    ENTITY_BIT,
    FRIEND_BIT,
    Candidates,
    Others,
    Popular,
    following_of,
    gather_candidates,
)
from engine.features.votes import SOURCES, Voters
from engine.index.base import Hits, top_k
from engine.inference.dense import cosines
from engine.ranking.asked import Asked
from engine.ranking.backfill import backfill
from engine.ranking.list_kernels import keep_listable
from engine.ranking.moment import Moment
from engine.ranking.query import Query
from engine.ranking.ragged import Ragged, padded

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

_NO_SCORES = np.zeros(0, np.float32)

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


class Hidden(NamedTuple):
    """Distinct rows [h] that would be candidates of a query if they could be listed.

    Attributes:
        row: [h].
        indexed: [h] whether the index has the item, which only this query leaves out.
        hit: [h] whether the index found it, so that it took a place there.
    """

    row: Longs
    indexed: Flags
    hit: Flags


class Proposed(NamedTuple):
    """Candidates of B queries, each of which may be listed.

    Attributes:
        row: [B, C] int64 item rows in rising order, -1 behind the last.
        source: [B, C] int64 bits of the sources that proposed each.
        following: [B, n] int64 items that lately followed the user's last items, -1 where none.
        counts: how many there are of each query.
        floor: [B] the score that an item needs to be found by the index; -inf: any is found.
        hidden: of each query, what would be a candidate if it could be listed, as far as neither the index nor
            popularity tell it.
    """

    row: Longs
    source: Longs
    following: Longs
    counts: list[int]
    floor: Floats
    hidden: list[Hidden]


def propose(
    asked: Asked, vectors: Floats, search: Search, items: Floats, voters: Voters, moment: Moment, config: RankingConfig
) -> Proposed:
    """Gathers C candidates for each of B queries, none of which depends on the others.

    Args:
        vectors: [B, d] the encoded sessions.
        items: [N, d] embeddings.
    """
    breadths = [breadth_of(query, moment.graph.user_items.size, config) for query in asked.queries]
    index, floor = _hits(asked, vectors, search, items, moment, breadths)
    popular = [breadth.popular for breadth in breadths]
    made = gather(asked, index, popular, voters, moment, config)
    # Where the index has given all that it has, there are no others, unless some have become available right now.
    lacking = [
        0 if at_least == -np.inf and moment.settled else max(0, query.k - count)
        for query, count, at_least in zip(asked.queries, made.counts, floor.tolist(), strict=True)
    ]
    if any(lacking):
        looked = [np.concatenate([made.row[b], made.hidden[b].row]) for b in range(len(asked))]
        rest = [backfill(asked, b, moment, looked[b], lacking[b]) for b in range(len(asked))]
        made = gather(asked, index, popular, voters, moment, config, rest)
    return made._replace(floor=floor)


def _hits(
    asked: Asked, vectors: Floats, search: Search, items: Floats, moment: Moment, breadths: Sequence[Breadth]
) -> tuple[Longs, Floats]:
    """[B, k] what the index finds, -1 where there is less, and [B] the score that an item needs to be found by it."""
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


def gather(
    asked: Asked,
    index: Longs,
    popular: Sequence[int],
    voters: Voters,
    moment: Moment,
    config: RankingConfig,
    rest: Sequence[Longs] | None = None,
) -> Proposed:
    """Joins all sources, and takes out what may not be listed.

    Args:
        index: [B, k] what the index found, -1 where there is less.
        popular: how many of the popular items each query has.
        rest: of each query, what else fills up its list.
    """
    history, sources = asked.history.row.numpy(), config.neighbor_sources
    if sources <= SOURCES:
        read = voters.following
        following = read[:, max(0, read.shape[1] - sources) :].reshape(len(read), -1)
    else:
        following = following_of(moment.graph, asked.history, sources, asked.clock_ms)
    top = Popular(moment.popularity.top(max(popular)), np.array(popular))
    found = gather_candidates(history, index, following, top, _others(asked, rest))
    return _listable(found, following, moment.may(found.item), asked)


def _others(asked: Asked, rest: Sequence[Longs] | None) -> Others:
    """The items that relations propose, and those that fill up short lists."""
    proposed = [*zip(asked.related.proposed, (FRIEND_BIT, ENTITY_BIT), strict=False)]
    if rest is not None:
        proposed.append((padded(rest), BACKFILL_BIT))
    if not proposed:
        return Others.none(len(asked))
    bits = [np.full(rows.shape[1], bit) for rows, bit in proposed]
    return Others(np.concatenate([rows for rows, _ in proposed], axis=1), np.concatenate(bits))


def _listable(found: Candidates, following: Longs, shown: Flags, asked: Asked) -> Proposed:
    """Without the candidates that may not be listed.

    Args:
        shown: [B, C] whether each may be shown to anybody.
    """
    leaves_history = np.array([query.exclude_history for query in asked.queries], np.bool_)
    has_members = np.array([filter_.members is not None for filter_ in asked.filters], np.bool_)
    excluded = Ragged.of([filter_.excluded for filter_ in asked.filters])
    members = Ragged.of([() if filter_.members is None else filter_.members for filter_ in asked.filters])
    related = Ragged.of(asked.related.hidden or [()] * len(asked))
    row, source, count, hidden, indexed, hit, first = keep_listable(
        found.item, found.source, shown, asked.history.row.numpy(), leaves_history, (*excluded,),
        (*members, has_members), (*related,),
    )  # fmt: skip
    parts = [slice(*span) for span in pairwise(first.tolist())]
    left_out = [Hidden(hidden[part], indexed[part], hit[part]) for part in parts]
    return Proposed(row, source, following, count.tolist(), _NO_SCORES, left_out)


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
