"""The fold of one slice's events, compiled: what its sessions, rings, counts and rows keep of them, in one pass.

A step often holds a handful of events, and then costs what its calls cost. So this is one call, put together from the
kernels that each structure uses by itself while a copy is being made.

Shapes: E events, U users, N items, K edges a ring keeps, H half-lives, L links.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engine.state.kernels import (
    RING,
    Doubles,
    Floats,
    Ints,
    Longs,
    RingArrays,
    append_edges,
    compiled,
    fold_sessions,
    stamp,
)

TO_NOTHING = -4096  # doublings that leave 0 of any score


@compiled("i8(i8[::1], i8, i8[::1])")
def find_rising(offset: Longs, newest: int, at: Longs) -> int:
    """Fills `at` [E] with the places of the offsets greater than `newest` and all before; returns how many."""
    count = 0
    for e in range(len(offset)):
        if offset[e] > newest:
            newest = offset[e]
            at[count] = e
            count += 1
    return count


@compiled("void(f8[:,::1], i8[::1], i8[::1], i8[::1], i8[::1], f8[:,::1])")
def add_decayed(
    table: Doubles, half_lives_ms: Longs, landmark: Longs, item: Longs, time_ms: Longs, weight: Doubles
) -> None:
    """Adds `weight * 2 ** (time / half-life - landmark)` to each item's counts [N, H], event after event.

    Args:
        weight: [E, H] of each event under each half-life.

    A sum in floating point depends on its order, which is therefore that of the log.
    """
    for e in range(len(item)):
        for h in range(len(half_lives_ms)):
            halvings = time_ms[e] // half_lives_ms[h]
            rest = float(time_ms[e] - halvings * half_lives_ms[h]) / float(half_lives_ms[h])
            doublings = max(halvings - landmark[h], TO_NOTHING)
            table[item[e], h] += math.ldexp(weight[e, h] * np.exp2(rest), int(doublings))


@compiled("void(i8[::1], i8[::1], f4[::1], i8[:,::1])")
def edge_words_of(time_ms: Longs, kind: Longs, weight: Floats, words: Longs) -> None:
    """Fills `words` [E, 2] with what a `Ring` keeps of each edge beside its neighbor: without session or generation."""
    bits = weight.view(np.int32)
    for e in range(len(time_ms)):
        words[e, 0] = (time_ms[e] << 8) | kind[e]
        words[e, 1] = np.int64(bits[e]) & 0xFFFF_FFFF


@compiled(
    f"UniTuple(i8, 3)({RING}, {RING}, {RING}, i8[:,::1], i4[::1], i8, i8, f8[:,::1], i8[::1], i8[::1], f8[:,::1],"
    " i8[::1], i8[::1], i8[::1], i8[::1], i8[::1], i8[::1], i8[::1], i1[::1], f4[::1], i8[::1], i4[::1], i8[::1])"
)
def fold_events(
    user_items: RingArrays,
    item_users: RingArrays,
    item_next: RingArrays,
    sessions: Longs,
    items_generation: Ints,
    gap_ms: int,
    unnamed: int,
    counts: Doubles,
    half_lives_ms: Longs,
    landmark: Longs,
    weight: Doubles,
    users_seen: Longs,
    items_seen: Longs,
    user: Longs,
    item: Longs,
    name: Longs,
    time_ms: Longs,
    counted_ms: Longs,
    kind: NDArray[np.int8],
    value: Floats,
    offset: Longs,
    ordinal: Ints,
    previous: Longs,
) -> tuple[int, int, int]:
    """Folds E events; fills `ordinal` and `previous` as `fold_sessions` does.

    Args:
        user_items, item_users, item_next: of a `Graph`.
        sessions, items_generation, gap_ms, unnamed: as `fold_sessions` takes them.
        counts, half_lives_ms, landmark: as `add_decayed` takes them; no scale may have to move.
        weight: [E, H] what each event weighs in `counts`, see `Contributions`.
        users_seen, items_seen: [U], [N] get 1 + `offset`.
        counted_ms: times that the events have in `counts`, see `Clock`.

    Returns:
        Blocks that each ring has taken.
    """
    count = len(user)
    fold_sessions(sessions, items_generation, gap_ms, unnamed, user, name, item, time_ms, ordinal, previous)
    words = np.empty((count, 2), np.int64)
    kinds = kind.astype(np.int64)
    edge_words_of(time_ms, kinds, value, words)
    users_taken = append_edges(item_users, item, user, words)
    next_taken = append_edges(item_next, previous, item, words)
    seen = np.empty(count, np.int64)
    for e in range(count):
        words[e, 1] |= (np.int64(ordinal[e]) & 0xFFFF) << 48
        seen[e] = offset[e] + 1
    items_taken = append_edges(user_items, user, item, words)
    stamp(users_seen, user, seen)
    stamp(items_seen, item, seen)
    add_decayed(counts, half_lives_ms, landmark, item, counted_ms, weight)
    return items_taken, users_taken, next_taken


@compiled("void(f8[:,::1], i4[::1], i8[::1], i8[::1], i8[::1], f8[:,::1])")
def add_counts(table: Doubles, row_of: Ints, under: Longs, doublings: Longs, rows: Longs, total: Doubles) -> None:
    """Adds a slice's counts under some half-lives [h], each times 2 ** its `doublings` [H], to `total` [R, h].

    Args:
        table: [n, H] by the slice's row.
        row_of: 1 + the slice's row by row of the process; 0 where it has not met an item.
        rows: [R] of the process.
    """
    for r in range(len(rows)):
        local = row_of[rows[r]] - 1
        if local < 0:
            continue
        for h in range(len(under)):
            score, doubled = table[local, under[h]], doublings[under[h]]
            total[r, h] += math.ldexp(score, int(max(doubled, TO_NOTHING))) if doubled else score
