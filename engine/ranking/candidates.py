"""Candidates of a batch of queries: the index's answer to the session, joined with the live sources.

An item that may not be listed is no candidate: it is gone before anything is counted over the candidates.

Shapes: B queries, k index hits of each, d width, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.features.candidates import INDEX_BIT, Candidates, gather_candidates
from engine.features.votes import SOURCES, Voters
from engine.index.base import Hits
from engine.inference.dense import cosines
from engine.ranking.asked import Asked
from engine.ranking.backfill import backfill
from engine.ranking.moment import Moment
from engine.ranking.query import Query
from engine.ranking.related import padded

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
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
        floor: [B] the score that an item needs to be found by the index; -inf: any is found.
        hidden: of each query, what would be a candidate if it could be listed, as far as neither the index nor
            popularity tell it.
    """

    row: Longs
    source: Longs
    following: torch.Tensor
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
    index = np.full((len(asked), max(breadth.hits for breadth in breadths)), -1, np.int64)
    floor = np.full(len(asked), -np.inf, np.float32)
    for k in {breadth.hits for breadth in breadths}:
        at = [b for b, breadth in enumerate(breadths) if breadth.hits == k]
        hits = search(vectors[at], k)
        index[at, :k], floor[at] = hits.row, hits.score[:, -1]
    for b, filter_ in enumerate(asked.filters):
        if filter_.members is not None:
            members = filter_.members[moment.may(filter_.members)]  # As in the index: others take no place.
            index[b] = -1
            found, floor[b] = _within(members, vectors[b], items, breadths[b].hits)
            index[b, : len(found)] = found
    made = gather(asked, index, [breadth.popular for breadth in breadths], voters, moment, config)
    # Where the index has given all that it has, there are no others, unless some have become available right now.
    all_given = np.isneginf(floor) & moment.settled
    lacking = np.array([query.k for query in asked.queries]) - (made.row >= 0).sum(axis=1)
    short = (lacking > 0) & ~all_given
    if short.any():
        looked = [np.concatenate([made.row[b], made.hidden[b].row]) for b in range(len(asked))]
        rest = [backfill(asked, b, moment, looked[b], lacking[b] if short[b] else 0) for b in range(len(asked))]
        made = gather(asked, index, [breadth.popular for breadth in breadths], voters, moment, config, rest)
    return made._replace(floor=floor)


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
    top = moment.popularity.top(max(popular))
    shown = np.where(np.arange(len(top)) < np.array(popular)[:, None], top, -1)  # [B, P]
    nobody = torch.zeros((len(asked), 0), dtype=torch.int64)
    related = asked.related.proposed
    if rest is not None:
        related = (*(related or (nobody, nobody)), padded(rest))
    read = voters.following if config.neighbor_sources <= SOURCES else None
    found = gather_candidates(
        moment.graph, asked.history, torch.from_numpy(index), torch.from_numpy(shown), config.neighbor_sources,
        related, read, asked.clock_ms,
    )  # fmt: skip
    return _listable(found, asked, moment)


def _listable(found: Candidates, asked: Asked, moment: Moment) -> Proposed:
    """Without the candidates that may not be listed."""
    row, source = found.item.numpy(), found.source.numpy()
    shown = (row >= 0) & moment.may(np.maximum(row, 0))
    may = shown.copy()
    for b in range(len(asked)):
        may[b] &= asked.lets(b, row[b])
    gone = (row >= 0) & ~may
    hidden = [_hidden(row[b], source[b], shown[b], gone[b], asked.related.hidden_of(b)) for b in range(len(asked))]
    if gone.any():
        first = np.argsort(~may, axis=1, kind="stable")[:, : max(1, int(may.sum(axis=1).max()))]
        kept = np.take_along_axis(may, first, axis=1)
        row = np.where(kept, np.take_along_axis(row, first, axis=1), -1)
        source = np.where(kept, np.take_along_axis(source, first, axis=1), 0)
    return Proposed(row, source, found.following, np.zeros(0, np.float32), hidden)


def _hidden(row: Longs, source: Longs, shown: Flags, gone: Flags, related: Longs) -> Hidden:
    """Of the candidates [C] of one query those that are `gone`, and of its relations those that never came."""
    others = np.setdiff1d(related, row[gone])
    nothing = np.zeros(len(others), np.bool_)
    hit = (source[gone] & INDEX_BIT) > 0
    return Hidden(
        np.concatenate([row[gone], others]), np.concatenate([shown[gone], nothing]), np.concatenate([hit, nothing])
    )


def _doubled(least: int, needed: int) -> int:
    """`least`, doubled as often as it takes to reach `needed`."""
    while least < needed:
        least *= 2
    return least


def _within(rows: Longs, vector: Floats, items: Floats, k: int) -> tuple[Longs, float]:
    """The k best of `rows` by exact search, and the score of the last; -inf where there are fewer.

    An index can't see through a narrow filter.
    """
    score = cosines(items, rows[None], vector[None])[0]
    best = np.argsort(-score, kind="stable")[:k]
    return rows[best], float(score[best[-1]]) if len(best) == k else -np.inf
