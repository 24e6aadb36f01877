"""The list's loops over candidates, compiled: which of them may be listed, and all that is known of each.

Shapes: B queries, C candidates of each, d width, N items, M rows of a table, P popular items, T half-lives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.features.candidates import INDEX_BIT
from engine.features.table import HABITS, TRENDS, fill_features, trend_of
from engine.features.votes import VOTES, add_votes
from engine.inference.dense import inner
from engine.state.kernels import compiled

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]


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


@compiled(
    "Tuple((i8[:,::1], i8[:,::1], i8[::1], i8[::1], b1[::1], b1[::1], i8[::1]))(i8[:,::1], i8[:,::1], b1[:,:],"
    " i8[:,:], b1[::1], Tuple((i8[::1], i8[::1])), Tuple((i8[::1], i8[::1], b1[::1])), Tuple((i8[::1], i8[::1])))"
)
def keep_listable(
    row: Longs,
    source: Longs,
    shown: Flags,
    history: Longs,
    leaves_history: Flags,
    exclusions: tuple[Longs, Longs],
    memberships: tuple[Longs, Longs, Flags],
    relations: tuple[Longs, Longs],
) -> tuple[Longs, Longs, Longs, Longs, Flags, Flags, Longs]:
    """Takes out the candidates that may not be listed.

    Args:
        row, source: [B, C] rows in rising order, -1 behind the last, and the bits of their sources.
        shown: [B, C] whether each may be shown to anybody.
        history: [B, K] what each user had, which queries of `leaves_history` [B] leave out.
        exclusions: `Ragged` rows that each query leaves out.
        memberships: `Ragged` rising rows besides which a query wants none, and [B] whether it has such.
        relations: `Ragged` rows that each user's relations would propose if they could be shown.

    Returns:
        Rows and sources of the others [B, C'] and how many there are [B]; then, of all queries one behind the other,
        the rows that would be candidates if they could be listed, whether the index has them, whether it found them,
        and where those of each query begin [B + 1].
    """
    excluded, first_excluded = exclusions
    members, first_member, has_members = memberships
    related, first_related = relations
    users, width = row.shape
    may = np.zeros((users, width), np.bool_)
    count = np.zeros(users, np.int64)
    hidden = np.empty(users * width + len(related), np.int64)
    indexed, hit = np.zeros(len(hidden), np.bool_), np.zeros(len(hidden), np.bool_)
    first_hidden = np.zeros(users + 1, np.int64)
    gone = 0
    for b in range(users):
        n = 0
        while n < width and row[b, n] >= 0:
            may[b, n] = shown[b, n]
            n += 1
        if leaves_history[b]:
            for at in history[b]:
                c = np.searchsorted(row[b, :n], at)
                if at >= 0 and c < n and row[b, c] == at:
                    may[b, c] = False
        for at in excluded[first_excluded[b] : first_excluded[b + 1]]:
            c = np.searchsorted(row[b, :n], at)
            if c < n and row[b, c] == at:
                may[b, c] = False
        own = gone
        for c in range(n):
            if has_members[b] and not is_among(members, first_member[b], first_member[b + 1], row[b, c]):
                may[b, c] = False
            if may[b, c]:
                count[b] += 1
            else:
                hidden[gone], indexed[gone], hit[gone] = row[b, c], shown[b, c], (source[b, c] & INDEX_BIT) > 0
                gone += 1
        end = gone
        for at in related[first_related[b] : first_related[b + 1]]:
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
    return kept, bits, count, hidden[:gone].copy(), indexed[:gone].copy(), hit[:gone].copy(), first_hidden


@compiled(
    "f4[:,::1](i8[:,::1], f4[:,::1], Tuple((f4[:,::1], f4[:,:])), Tuple((f8[::1], f8, f8[:,:], f8[:,:])),"
    " Tuple((i8[:,:], i8[:,:,:], i8[:,:], i8[:], i8[:], i8[:,:,:])),"
    " Tuple((i8[:,:], i8[:,:], i4[:,:])), Tuple((i8[:,:], i8[:], i8[:])), f4[:,:,::1])"
)
def weigh_rows(
    row: Longs,
    vector: Floats,
    tables: tuple[Floats, Floats],
    popularity: tuple[Doubles, float, Doubles, Doubles],
    voters: tuple[Longs, Longs, Longs, Longs, Longs, Longs],
    history: tuple[Longs, Longs, Ints],
    live: tuple[Longs, Longs, Longs],
    features: Floats,
) -> Floats:
    """Fills `features` [B, at least C, FEATURES], which come as zeros; returns the cosines [B, C] with the sessions.

    Args:
        row: [B, C] candidates, -1 where there is none.
        vector: [B, d] the sessions.
        tables: [M, d] the embeddings of items, and [M, HABITS], see `Recommender.habit`.
        popularity: [N] decayed counts and the sum of all, [B * C, T] those of the candidates under other half-lives,
            and [P, T] those of the popular items.
        voters: see `Voters`.
        history: [B, K] rows, times and sessions of the users' events.
        live: [B, n] what lately followed each user's last items, [N] the groups of items, and [B] the clocks.
    """
    items, habit = tables
    score, total, counts, popular_counts = popularity
    source, voter, voter_item, voter_ms, user_ms, next_item = voters
    following, group, now_ms = live
    users, width = row.shape
    cosine = np.zeros((users, width), np.float32)
    share = np.zeros((users, width))
    trend = np.zeros((users, width, TRENDS), np.float32)
    habits = np.zeros((users, width, HABITS), np.float32)
    votes = np.zeros((users, width, VOTES), np.float32)
    popular = np.zeros(TRENDS)
    for t in range(TRENDS):
        for p in range(len(popular_counts)):
            popular[t] += popular_counts[p, t]
    for b in range(users):
        for c in range(width):
            item = row[b, c]
            if item < 0:
                continue
            cosine[b, c] = inner(items[item], vector[b])
            share[b, c] = score[item] / total if total > 0.0 else 0.0
            for t in range(TRENDS):
                trend[b, c, t] = trend_of(counts[b * width + c, t], popular[t])
            for h in range(HABITS):
                habits[b, c, h] = habit[item, h]
    add_votes(source, voter, voter_item, voter_ms, user_ms, next_item, row, votes)
    fill_features(row, history, (following, share, trend, votes, habits), group, now_ms, features)
    return cosine
