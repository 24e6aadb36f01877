"""The list's loops over candidates, compiled: which of them may be listed, and all that is known of each.

Shapes: B queries, C candidates of each, d width, N items, M rows of a table, P popular items, T half-lives.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.features.candidates import INDEX_BIT, Others, following_of, unite
from engine.features.live import Askers, Live, Popular, Tables
from engine.features.table import HABITS, TRENDS, Crowd, features_of, trend_of
from engine.features.votes import VOTES, Voters, add_votes, read_voters
from engine.inference.ranker_forward import RankerWeights, score_rows
from engine.kernel_cache import record
from engine.numeric.dense import inner
from engine.ranking.page import best_places
from engine.state.availability import may_show
from engine.state.kernels import compiled
from engine.state.merged_kernels import counts_of_slices

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@record("i8[::1]", "b1[::1]", "i8[::1]", "i8[::1]", "i8[::1]", "i8[::1]", "b1[::1]", "i8[::1]", "i8[::1]")
class Wishes(NamedTuple):
    """The wishes of B queries: which items each wants, and which it leaves out.

    Attributes:
        popular: [B] how many of the popular items each is proposed.
        leaves_history: [B] whether it leaves out what its user had.
        excluded, first_excluded: `Ragged` rows that each leaves out.
        members, first_member: `Ragged` rising rows besides which a query wants none.
        has_members: [B] whether it has such.
        related, first_related: `Ragged` rows that each user's relations would propose if they could be shown.
    """

    popular: Longs
    leaves_history: Flags
    excluded: Longs
    first_excluded: Longs
    members: Longs
    first_member: Longs
    has_members: Flags
    related: Longs
    first_related: Longs


@record("Askers", "Wishes", "Others")
class Asks(NamedTuple):
    """B queries: who asks, for what, and what other sources than the rings propose."""

    askers: Askers
    wishes: Wishes
    others: Others


@record("i8[:,::1]", "i8[:,::1]", "i8[::1]", "i8[::1]", "b1[::1]", "b1[::1]", "i8[::1]")
class Listable(NamedTuple):
    """Candidates of B queries, and what else would be a candidate if it could be listed.

    Attributes:
        row: [B, C] rows that may be listed in rising order, -1 behind the last.
        source: [B, C] bits of the sources that proposed each.
        size: [B] how many there are.
        hidden: rows of all queries that can't be listed, one query's behind the other's.
        indexed: whether the index has each of them, which only its query leaves out.
        hit: whether the index found it, so that it took a place there.
        first: [B + 1] where those of each query begin.
    """

    row: Longs
    source: Longs
    size: Longs
    hidden: Longs
    indexed: Flags
    hit: Flags
    first: Longs


@record("f4[:,::1]", "i8[:,::1]", "f4[:,::1]", "i8[:,::1]", "i8[::1]")
class Ranked(NamedTuple):
    """Lists of B queries, best first, ties by row.

    Attributes:
        score: [B, C] of all candidates.
        row, listed, source: [B, n] rows of each list, their scores, and the bits of their sources; -1 and 0 behind the
            last.
        size: [B] how many items each list has.
    """

    score: Floats
    row: Longs
    listed: Floats
    source: Longs
    size: Longs


@compiled("b1(i8[::1], i8, i8, i8)")
def is_among(rows: Longs, first: int, end: int, row: int) -> bool:
    """Whether `row` is one of rows[first:end], which rise."""
    low, high = first, end
    while low < high:
        middle = (low + high) >> 1
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low < end and rows[low] == row


@compiled("Listable(i8[:,::1], i8[:,::1], b1[:,::1], i8[:,::1], Wishes)")
def keep_listable(row: Longs, source: Longs, shown: Flags, history: Longs, wishes: Wishes) -> Listable:
    """Takes out the candidates that may not be listed.

    Args:
        row, source: [B, C] rows in rising order, -1 behind the last, and the bits of their sources.
        shown: [B, C] whether each may be shown to anybody.
        history: [B, K] what each user had.
    """
    users, width = row.shape
    may = np.zeros((users, width), np.bool_)
    count = np.zeros(users, np.int64)
    hidden = np.empty(users * width + len(wishes.related), np.int64)
    indexed, hit = np.zeros(len(hidden), np.bool_), np.zeros(len(hidden), np.bool_)
    first_hidden = np.zeros(users + 1, np.int64)
    gone = 0
    for b in range(users):
        n = 0
        while n < width and row[b, n] >= 0:
            may[b, n] = shown[b, n]
            n += 1
        if wishes.leaves_history[b]:
            for at in history[b]:
                c = np.searchsorted(row[b, :n], at)
                if at >= 0 and c < n and row[b, c] == at:
                    may[b, c] = False
        for at in wishes.excluded[wishes.first_excluded[b] : wishes.first_excluded[b + 1]]:
            c = np.searchsorted(row[b, :n], at)
            if c < n and row[b, c] == at:
                may[b, c] = False
        own = gone
        first_member, end_member = wishes.first_member[b], wishes.first_member[b + 1]
        for c in range(n):
            if wishes.has_members[b] and not is_among(wishes.members, first_member, end_member, row[b, c]):
                may[b, c] = False
            if may[b, c]:
                count[b] += 1
            else:
                hidden[gone], indexed[gone], hit[gone] = row[b, c], shown[b, c], (source[b, c] & INDEX_BIT) > 0
                gone += 1
        end = gone
        for at in wishes.related[wishes.first_related[b] : wishes.first_related[b + 1]]:
            if not is_among(hidden, own, end, at):
                hidden[gone] = at
                gone += 1
        first_hidden[b + 1] = gone
    longest = max(count.max(), 1) if users else 0
    kept, bits = np.full((users, longest), -1), np.zeros((users, longest), np.int64)
    for b in range(users):
        to = 0
        for c in range(width):
            if may[b, c]:
                kept[b, to], bits[b, to] = row[b, c], source[b, c]
                to += 1
    return Listable(kept, bits, count, hidden[:gone].copy(), indexed[:gone].copy(), hit[:gone].copy(), first_hidden)


@compiled("Tuple((Listable, Voters, i8[:,::1]))(i8[:,:], Asks, Live, i8)")
def propose_rows(index: Longs, asks: Asks, live: Live, sources: int) -> tuple[Listable, Voters, Longs]:
    """Joins all sources, and takes out what may not be listed.

    Args:
        index: [B, k] what the index found, -1 where there is less.
        sources: last items of a user whose next items are proposed.

    Returns:
        The candidates, who votes for them, and what lately followed each user's last items, see `following_of`.
    """
    voters = read_voters(asks.askers, live.rings)
    following = following_of(voters, asks.askers, live.rings, sources)
    row, source = unite(index, asks.askers.row, following, live.popular.top, asks.wishes.popular, asks.others)
    shown = np.zeros(row.shape, np.bool_)
    for b in range(row.shape[0]):
        for c in range(row.shape[1]):
            shown[b, c] = row[b, c] >= 0 and may_show(live.shown, row[b, c])
    return keep_listable(row, source, shown, asks.askers.row, asks.wishes), voters, following


@compiled("f4[:,:,::1](i8[:,::1], Popular, i8)")
def trends_of(row: Longs, popular: Popular, candidates: int) -> Floats:
    """[B, C, TRENDS] of `Crowd`, of candidates [B, C], -1 where there is none.

    The trends are those of the second and third half-life, or of the last where there are fewer.

    Args:
        candidates: how many of the popular items they are relative to.
    """
    users, width = row.shape
    under = np.minimum(np.arange(1, TRENDS + 1), popular.counts.half_lives - 1)
    counted = counts_of_slices(popular.counts, under, row.reshape(-1))
    of_popular = counts_of_slices(popular.counts, under, popular.top[:candidates])
    trend = np.zeros((users, width, TRENDS), np.float32)
    for t in range(TRENDS):
        total = 0.0
        for p in range(len(of_popular)):
            total += of_popular[p, t]
        for b in range(users):
            for c in range(width):
                if row[b, c] >= 0:
                    trend[b, c, t] = trend_of(counted[b * width + c, t], total)
    return trend


@compiled("Tuple((f4[:,::1], f4[:,:,::1]))(i8[:,::1], f4[:,::1], Tables, Asks, Live, Voters, i8[:,::1], i8)")
def weigh_rows(
    row: Longs,
    vector: Floats,
    tables: Tables,
    asks: Asks,
    live: Live,
    voters: Voters,
    following: Longs,
    candidates: int,
) -> tuple[Floats, Floats]:
    """The cosines [B, C] of candidates with the sessions, and their features [B, C, FEATURES].

    Args:
        row: [B, C] candidates, -1 where there is none.
        vector: [B, d] the sessions.
        following: [B, n] what lately followed each user's last items.
        candidates: how many of the popular items trends are relative to.
    """
    users, width = row.shape
    cosine = np.zeros((users, width), np.float32)
    share = np.zeros((users, width))
    habit = np.zeros((users, width, HABITS), np.float32)
    votes = np.zeros((users, width, VOTES), np.float32)
    for b in range(users):
        for c in range(width):
            item = row[b, c]
            if item < 0:
                continue
            cosine[b, c] = inner(tables.item[item], vector[b])
            share[b, c] = live.popular.score[item] / live.popular.total if live.popular.total > 0.0 else 0.0
            for h in range(HABITS):
                habit[b, c, h] = tables.habit[item, h]
    add_votes(voters, row, votes)
    crowd = Crowd(following, share, trends_of(row, live.popular, candidates), votes, habit)
    return cosine, features_of(row, asks.askers, crowd, live.group)


@compiled("Tuple((Listable, f4[:,::1], f4[:,:,::1]))(i8[:,:], f4[:,::1], Tables, Asks, Live, i8, i8)", unlocked=True)
def weigh_lists(
    index: Longs, vector: Floats, tables: Tables, asks: Asks, live: Live, sources: int, candidates: int
) -> tuple[Listable, Floats, Floats]:
    """The candidates of B queries with cosines and features: see `propose_rows` and `weigh_rows`."""
    listable, voters, following = propose_rows(index, asks, live, sources)
    cosine, features = weigh_rows(listable.row, vector, tables, asks, live, voters, following, candidates)
    return listable, cosine, features


@compiled("Ranked(Listable, f4[:,::1], f4[:,:,::1], RankerWeights, i8[::1])", unlocked=True)
def rank_rows(listable: Listable, cosine: Floats, features: Floats, weights: RankerWeights, k: Longs) -> Ranked:
    """The k[b] best candidates of each query.

    Args:
        cosine, features: [B, C] and [B, C, FEATURES] of the candidates.
    """
    score = score_rows(weights, cosine, features, listable.size)
    users, width = score.shape
    most = min(k.max(), width) if users else 0
    places = np.empty((users, most), np.int64)
    count = best_places(listable.row, score, k, places)
    row, source = np.full((users, most), -1), np.zeros((users, most), np.int64)
    listed = np.zeros((users, most), np.float32)
    for b in range(users):
        for j in range(count[b]):
            at = places[b, j]
            row[b, j], listed[b, j], source[b, j] = listable.row[b, at], score[b, at], listable.source[b, at]
    return Ranked(score, row, listed, source, count)
