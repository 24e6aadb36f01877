"""The best k of some candidates, compiled: one pass in place of a dozen library calls, each dearer than the few hundred
candidates that a search looks at.

Shapes: B queries, D dimensions, n and m candidates, k results, C capacity, N one past the highest row seen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernel_cache import record
from engine.numeric.dense import inner
from engine.state.kernels import compiled

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@record("i8[:,::1]", "f4[:,::1]")
class Hits(NamedTuple):
    """The nearest rows of each query, best first.

    Attributes:
        row: [B, k] int64, -1 where fewer than k exist.
        score: [B, k] float32, descending; -inf where row is -1.
    """

    row: Longs
    score: Floats


@record("i8", "i8[::1]", "i8[::1]", "f4[:,::1]")
class Held(NamedTuple):
    """The vectors of an `ExactIndex`.

    Attributes:
        size: S, rows held.
        row: [C] the row in each slot.
        slot: [N] where each row lies, -1 where it is absent.
        vector: [C, D] the vector in each slot.
    """

    size: int
    row: Longs
    slot: Longs
    vector: Floats


@compiled("i8(f4, i8)")
def key_of(score: Any, row: int) -> Any:
    """One integer that orders by score, then by the lower row, which is below 2**31: a float's bits do from 0 on."""
    bits = np.int64(np.float32(score + np.float32(0.0)).view(np.int32))
    bits = bits if bits >= 0 else np.int64(-0x80000000) - bits - 1
    return (bits << 32) | (0x7FFFFFFF - row)


@compiled("void(i8[::1], i8, i8[::1], f4[::1])")
def write_best(key: Longs, n: int, row: Longs, score: Floats) -> None:
    """Fills `row` and `score` [k] with the best of the first n keys, best first; -1 and -inf behind the last."""
    k = len(row)
    if n > k > 0:
        key[:n] = np.partition(key[:n], n - k)
        key[:k] = key[n - k : n]
        n = k
    best = np.sort(key[: min(n, k)])
    for at in range(k):
        if at < len(best):
            word = best[len(best) - 1 - at]
            row[at] = 0x7FFFFFFF - (word & 0x7FFFFFFF)
            bits = word >> 32
            bits = bits if bits >= 0 else np.int64(-0x80000000) - bits - 1
            score[at] = np.int32(bits).view(np.float32)
        else:
            row[at] = -1
            score[at] = -np.inf


@compiled("void(i8[:,:], f4[:,:], i8[:,:], f4[:,:], i8[:,::1], f4[:,::1])")
def pick_best(
    row: Longs, score: Floats, more_row: Longs, more_score: Floats, best_row: Longs, best_score: Floats
) -> None:
    """Fills `best_row` and `best_score` [B, k] with the best of n candidates and of m more.

    Args:
        row, more_row: [1, n] where all queries have the same candidates, else [B, n].
        score, more_score: [B, n] and [B, m]; -inf hides a candidate.
    """
    n, m = score.shape[1], more_score.shape[1]
    key = np.empty(n + m, np.int64)
    for b in range(len(score)):
        count = 0
        own, more = b if len(row) > 1 else 0, b if len(more_row) > 1 else 0
        for at in range(n):
            if score[b, at] > -np.inf:
                key[count] = key_of(score[b, at], row[own, at])
                count += 1
        for at in range(m):
            if more_score[b, at] > -np.inf:
                key[count] = key_of(more_score[b, at], more_row[more, at])
                count += 1
        write_best(key, count, best_row[b], best_score[b])


@compiled("void(i8[:,:], f4[:,:], i8[::1], i8[::1], i8[:,::1], f4[:,::1])")
def expand_nodes(node: Longs, distance: Floats, first: Longs, members: Longs, row: Longs, score: Floats) -> None:
    """Fills `row` and `score` [B, k] with the rows of nodes [B, n], best first; -1 and -inf where there are fewer.

    Args:
        first: node u stands for the rows members[first[u] : first[u + 1]].
    """
    for b in range(len(node)):
        to = 0
        for j in range(node.shape[1]):
            for at in range(first[node[b, j]], first[node[b, j] + 1]):
                if to == row.shape[1]:
                    break
                row[b, to] = members[at]
                score[b, to] = np.float32(1) - distance[b, j]
                to += 1
        row[b, to:] = -1
        score[b, to:] = -np.inf


@compiled("Tuple((f4[:,::1], f4[::1], f4[::1]))(f4[:,::1], Hits, b1[::1], Held, i8)")
def score_anew(queries: Floats, found: Hits, served: Flags, held: Held, k: int) -> tuple[Floats, Floats, Floats]:
    """[B, n] what rows score by their current vectors, -inf where they are not `served`; the k-th best score and the
    largest rise of each [B], 0 where none has risen.

    Args:
        found: [B, n] rows, and their scores by the vectors that the graph was built with.
        served: [N].
        k: at most n.
    """
    users, n = found.row.shape
    score, kth, rise = np.empty((users, n), np.float32), np.empty(users, np.float32), np.zeros(users, np.float32)
    for b in range(users):
        for at in range(n):
            r = found.row[b, at]
            if r < 0 or not served[r]:
                score[b, at] = -np.inf
                continue
            dot = inner(held.vector[held.slot[r]], queries[b])
            score[b, at] = dot
            rise[b] = max(rise[b], dot - found.score[b, at])
        kth[b] = np.partition(score[b], n - k)[n - k] if k > 0 else -np.inf
    return score, kth, rise


@compiled("Tuple((Hits, b1[::1]))(f4[:,::1], Hits, b1[::1], Held, Held, Hits, i8, UniTuple(f8, 2))")
def settle(
    queries: Floats,
    found: Hits,
    served: Flags,
    held: Held,
    delta: Held,
    more: Hits,
    k: int,
    wanted: tuple[float, float],
) -> tuple[Hits, Flags]:
    """The k best of what a graph has found, by the current vectors, and of the delta.

    Args:
        found: [B, n] rows, and their scores by the vectors that the graph was built with.
        delta: rows that are all looked at; none where `more` [B, m] is what a search of them has found.
        wanted: how many of the best are to be right, and how far off the scores of `found` may be.

    Returns:
        The best, and [B] whether the graph may hold better ones than it has found: by the vectors of the build nothing
        beyond `found` scores more than its last; by the current ones it may, by as much as scores have risen since, for
        which the largest rise within `found` stands.
    """
    users, n = found.row.shape
    score, kth, rise = score_anew(queries, found, served, held, k)
    best = Hits(np.empty((users, k), np.int64), np.empty((users, k), np.float32))
    if delta.size:
        looked = np.full((users, delta.size), -np.inf, np.float32)
        for b in range(users):
            for s in range(delta.size):
                dot = inner(delta.vector[s], queries[b])
                if dot >= kth[b]:  # Nothing else in the delta counts.
                    looked[b, s] = dot
        pick_best(found.row, score, delta.row[: delta.size].reshape(1, delta.size), looked, best.row, best.score)
    else:
        pick_best(found.row, score, more.row, more.score, best.row, best.score)
    short = np.zeros(users, np.bool_)
    for b in range(users):
        last = found.score[b, n - 1] - np.float32(wanted[1])
        short[b] = best.score[b, k - 1] < last or best.score[b, min(k, int(wanted[0])) - 1] < last + rise[b]
    return best, short


@compiled("void(f4[:,::1], f4[::1], f4[:,::1], f4[:,::1], i8[::1], f4[::1], i8[:,::1], f4[:,::1])")
def rescore_near(
    near: Floats,
    bar: Floats,
    queries: Floats,
    vectors: Floats,
    rows: Longs,
    floor: Floats,
    row: Longs,
    score: Floats,
) -> None:
    """Fills `row` and `score` [B, k] with the best of S vectors, ties to the lower row.

    Args:
        near: [B, S] scores that are a little off, and `bar` [B] those below which none of the k best can be.
        vectors: [S, D].
        rows: [S] row of each, below 2**31.
        floor: [B] scores below which nothing is wanted.
    """
    key = np.empty(near.shape[1], np.int64)
    for b in range(len(queries)):
        n = 0
        for s in range(near.shape[1]):
            if near[b, s] >= bar[b]:
                dot = inner(vectors[s], queries[b])
                if dot >= floor[b]:
                    key[n] = key_of(dot, rows[s])
                    n += 1
        write_best(key, n, row[b], score[b])
