"""The best k of some candidates, compiled: one pass in place of a dozen library calls, each dearer than the few hundred
candidates that a search looks at.

Shapes: B queries, D dimensions, n and m candidates, k results, C capacity, N one past the highest row seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.inference.dense import inner
from engine.state.kernels import compiled

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


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


@compiled("void(f4[:,::1], i8[:,::1], f4[:,::1], b1[::1], i8[::1], f4[:,::1], i8, f4[:,::1], f4[::1], f4[::1])")
def score_anew(
    queries: Floats,
    row: Longs,
    built: Floats,
    served: NDArray[np.bool_],
    slot: Longs,
    vectors: Floats,
    k: int,
    score: Floats,
    kth: Floats,
    rise: Floats,
) -> None:
    """Fills `score` [B, n] with what rows score by their current vectors, -inf where they are not `served`.

    Args:
        row, built: [B, n] rows, -1 where there is none, and their scores by the vectors that the graph was built with.
        served: [N].
        slot, vectors: [N] and [C, D] where the current vector of each row lies.
        k: at most n.
        kth: [B] gets the k-th best score.
        rise: [B] gets by how much any score has risen, 0 where none has.
    """
    n = row.shape[1]
    for b in range(len(queries)):
        rise[b] = np.float32(0)
        for at in range(n):
            r = row[b, at]
            if r < 0 or not served[r]:
                score[b, at] = -np.inf
                continue
            dot = inner(vectors[slot[r]], queries[b])
            score[b, at] = dot
            rise[b] = max(rise[b], dot - built[b, at])
        kth[b] = np.partition(score[b], n - k)[n - k] if k > 0 else -np.inf


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
