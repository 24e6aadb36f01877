"""The loops that touch memory once per event or edge, compiled: what the rings, sessions and id tables do on a CPU.

Event by event in log order is the plainest way to fold, and compiled it is the fastest as well: no sort, no grouping,
and a call costs a microsecond where twenty calls of a tensor library cost a tenth of a millisecond. Each kernel does
what the tensor code beside its caller does, bit for bit; that code serves tables that are being copied.

The machine code is kept on disk, see `kernel_cache`. None here lets other threads run: each is over sooner than
they would give the interpreter back.

Shapes: E events or edges, B rows asked for, n edges of each, K edges a ring keeps, P sets of edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernel_cache import compiled

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

BLOCK_BITS = 3
BLOCK = 1 << BLOCK_BITS
_TAG = 0xFFFF
ORDINAL, NAME, ITEM, TIME, LINK = 0, 1, 2, 3, 4  # columns of `Sessions`


# -- ids --------------------------------------------------------------------------------------------------------------


@compiled("i8(i8[:,::1], i4[::1], i8[:,::1], i8[::1])")
def find_keys(keys: Longs, slot: Ints, key: Longs, rows: Longs) -> int:
    """Looks E keys up in an open-addressing table: `slot` holds row + 1, 0 where empty; `rows` -1 where unknown.

    Returns:
        How many are unknown.
    """
    mask = len(slot) - 1
    unknown = len(keys)
    for e in range(len(keys)):
        at = keys[e, 0] & mask
        rows[e] = -1
        while slot[at] != 0:
            row = slot[at] - 1
            if key[row, 0] == keys[e, 0] and key[row, 1] == keys[e, 1]:
                rows[e] = row
                unknown -= 1
                break
            at = (at + 1) & mask
    return unknown


@compiled("void(i8[::1], i8, i8[:,::1], i8[:,::1])")
def read_keys(rows: Longs, first: int, key: Longs, keys: Longs) -> None:
    """Fills `keys` [R, 2] for those of `rows` [R] that lie in `key`, whose row 0 is `first`."""
    for r in range(len(rows)):
        local = rows[r] - first
        if 0 <= local < len(key):
            keys[r] = key[local]


@compiled("void(i8[:,::1], i8[::1], i4[::1], i8[:,::1])")
def insert_keys(keys: Longs, rows: Longs, slot: Ints, key: Longs) -> None:
    """Gives E distinct keys that the table does not have their rows; there must be more slots than rows."""
    mask = len(slot) - 1
    for e in range(len(keys)):
        at = keys[e, 0] & mask
        while slot[at] != 0:
            at = (at + 1) & mask
        slot[at] = np.int32(rows[e] + 1)
        key[rows[e], 0] = keys[e, 0]
        key[rows[e], 1] = keys[e, 1]


@compiled("void(i8[::1], i4[::1], i8[:,::1])")
def remove_keys(rows: Longs, slot: Ints, key: Longs) -> None:
    """Takes distinct rows that the table has out of it.

    What follows without a gap moves up where its search would else end early (Knuth, The Art of Computer Programming,
    volume 3, algorithm 6.4R), so nothing is left behind that slows later searches down.
    """
    mask = len(slot) - 1
    for r in range(len(rows)):
        row = rows[r]
        hole = key[row, 0] & mask
        while slot[hole] != row + 1:
            hole = (hole + 1) & mask
        at = (hole + 1) & mask
        while slot[at] != 0:
            home = key[slot[at] - 1, 0] & mask
            if ((at - home) & mask) >= ((at - hole) & mask):
                slot[hole] = slot[at]
                hole = at
            at = (at + 1) & mask
        slot[hole] = 0
        key[row, 0] = key[row, 1] = 0


@compiled("void(i8[::1], i8[::1], i8[::1])")
def stamp(table: Longs, rows: Longs, values: Longs) -> None:
    """Sets `table[rows]`; of equal rows the last counts."""
    for e in range(len(rows)):
        table[rows[e]] = values[e]


# -- sessions ---------------------------------------------------------------------------------------------------------


@compiled("void(i8[:,::1], i4[::1], i8, i8, i8[::1], i8[::1], i8[::1], i8[::1], i4[::1], i8[::1])")
def fold_sessions(
    table: Longs,
    generation: Ints,
    gap_ms: int,
    unnamed: int,
    user: Longs,
    name: Longs,
    item: Longs,
    time_ms: Longs,
    ordinal: Ints,
    previous: Longs,
) -> None:
    """Folds E events into the sessions [U, 4 + L]; fills `ordinal` and `previous` [E]. See `Sessions`."""
    links = table.shape[1] - LINK
    for e in range(len(user)):
        u = user[e]
        first = table[u, ORDINAL] == 0
        same = name[e] == table[u, NAME]
        says_so = same and name[e] != unnamed
        late = not first and not says_so and time_ms[e] < table[u, TIME] - gap_ms
        starts = first or (not late and (not same or (not says_so and time_ms[e] - table[u, TIME] > gap_ms)))
        if name[e] != unnamed and (starts or late):
            last = LINK + links - 1
            for at in range(LINK, last):  # A name that is there already moves to the front.
                if table[u, at] == name[e]:
                    last = at
                    break
            for at in range(last, LINK, -1):
                table[u, at] = table[u, at - 1]
            table[u, LINK] = name[e]
        if late:
            ordinal[e], previous[e] = 0, -1
            continue
        before = table[u, ITEM] & 0xFFFF_FFFF
        alive = (table[u, ITEM] >> 32) == generation[before]
        previous[e] = before if alive and not starts else -1
        if starts:
            table[u, ORDINAL] += 1
        ordinal[e] = np.int32(table[u, ORDINAL])
        table[u, NAME] = name[e]
        table[u, ITEM] = item[e] | (np.int64(generation[item[e]]) << 32)
        table[u, TIME] = time_ms[e] if starts else max(table[u, TIME], time_ms[e])


# -- rings ------------------------------------------------------------------------------------------------------------


# Degree, block, owner, neighbor and edge of a `Ring`; its size, width and blocks; blocks to be used again, the last
# first; the generation of what edges lead to, empty where that never changes.
RingArrays = tuple[Longs, Ints, Ints, Ints, Longs, int, int, int, Longs, Ints]
RING = "Tuple((i8[::1], i4[::1], i4[::1], i4[::1], i8[:,::1], i8, i8, i8, i8[::1], i4[::1]))"


@compiled(f"i8({RING}, i8[::1], i8[::1], i8[:,::1])")
def append_edges(ring: RingArrays, src: Longs, dst: Longs, words: Longs) -> int:
    """Appends E edges to rings; an edge without a source (-1) is left out. See `Ring`.

    Returns:
        Blocks taken, those to be used again before new ones.
    """
    degree, block, owner, neighbor, edge, size, width, blocks, free, generation = ring
    taken = 0
    for e in range(len(src)):
        node = src[e]
        if node < 0:
            continue
        slot = degree[node] % size
        place = node * width + (slot >> BLOCK_BITS)
        home: Any = np.int64(block[place])
        if home == 0:
            home = free[len(free) - 1 - taken] if taken < len(free) else blocks + taken - len(free)
            taken += 1
            block[place] = np.int32(home)
            owner[home] = np.int32(node)
        at = (home << BLOCK_BITS) + (slot & (BLOCK - 1))
        neighbor[at] = np.int32(dst[e] + 1)
        edge[at, 0] = words[e, 0]
        tag = np.int64(generation[dst[e]] & _TAG) if len(generation) else np.int64(0)
        edge[at, 1] = words[e, 1] | (tag << 32)
        degree[node] += 1
    return taken


@compiled("i8(i4[::1], b1[::1], i8, i4[::1], i8[::1])")
def find_naming(neighbor: Ints, mark: NDArray[np.bool_], blocks: int, owner: Ints, found: Longs) -> int:
    """Fills `found` with the owner of each of the first `blocks` blocks in which an edge leads to a marked row.

    Args:
        mark: by 1 + row; False at 0, where no edge is.

    Returns:
        How many were found, a node once for each of its blocks.
    """
    count = 0
    for b in range(blocks):
        for at in range(b << BLOCK_BITS, (b + 1) << BLOCK_BITS):
            if neighbor[at] < len(mark) and mark[neighbor[at]]:
                found[count] = owner[b]
                count += 1
                break
    return count


@compiled(
    "void(i8[::1], i4[::1], i4[::1], i8[:,::1], i8, i8, i4[::1],"
    " i8[::1], i4[::1], i8, i8, i8[::1], b1,"
    " i8[:,::1], i8[:,::1], i8[:,::1], f4[:,::1], i4[:,::1])"
)
def latest_edges(
    degree: Longs,
    block: Ints,
    neighbor: Ints,
    edge: Longs,
    size: int,
    width: int,
    generation: Ints,
    rows: Longs,
    inward: Ints,
    first: int,
    limit: int,
    outward: Longs,
    by_time: bool,
    row: Longs,
    time_ms: Longs,
    kind: Longs,
    weight: Floats,
    session: Ints,
) -> None:
    """Fills [B, n] with the latest edges of `rows`, oldest first, against the right edge; what is left stays as it is.

    Args:
        inward: 1 + the ring's row by row asked for; empty where it is `row - first`, within 0..limit-1. Rows that the
            ring does not have are passed over.
        outward: what an edge leads to, by the ring's row; empty where it is that row + `first`.
        by_time: places each edge by its time among those that are there already, before the ones of equal time, and
            the oldest make room: what other rings have of the same nodes stays as far as it is as new.
    """
    n = row.shape[1]
    halves = edge.view(np.int32)
    weights = edge.view(np.float32)
    for b in range(len(rows)):
        node = np.int64(inward[rows[b]]) - 1 if len(inward) else rows[b] - first
        if node < 0 or node >= limit:
            continue
        to = n
        if by_time:
            while to > 0 and row[b, to - 1] >= 0:
                to -= 1
        slot = degree[node] % size
        for _ in range(min(n, degree[node])):
            slot = slot - 1 if slot > 0 else size - 1
            home = np.int64(block[node * width + (slot >> BLOCK_BITS)])
            at = (home << BLOCK_BITS) + (slot & (BLOCK - 1))
            found = np.int64(neighbor[at]) - 1
            time = edge[at, 0] >> 8
            if found < 0 or (to == 0 and time <= time_ms[b, 0]):
                continue
            tag = halves[at, 3]
            if len(generation) and ((tag ^ generation[found]) & _TAG) != 0:
                continue
            to = max(to - 1, 0)
            j = to
            if by_time:
                while j + 1 < n and time_ms[b, j + 1] < time:
                    row[b, j], time_ms[b, j], kind[b, j] = row[b, j + 1], time_ms[b, j + 1], kind[b, j + 1]
                    weight[b, j], session[b, j] = weight[b, j + 1], session[b, j + 1]
                    j += 1
            row[b, j] = outward[found] if len(outward) else found + first
            time_ms[b, j] = time
            kind[b, j] = edge[at, 0] & 0xFF
            weight[b, j] = weights[at, 2]
            session[b, j] = (tag >> 16) & _TAG


@compiled(
    "void(i8[:,:,::1], i8[:,:,::1], i8[:,:,::1], f4[:,:,::1], i4[:,:,::1],"
    " i8[:,::1], i8[:,::1], i8[:,::1], f4[:,::1], i4[:,::1])"
)
def merge_edges(
    rows: Longs,
    times: Longs,
    kinds: Longs,
    weights: Floats,
    sessions: Ints,
    row: Longs,
    time_ms: Longs,
    kind: Longs,
    weight: Floats,
    session: Ints,
) -> None:
    """Fills [B, n] with the newest by time of P sets [P, B, m]; of equal times a later set's, or a later edge, wins."""
    sets, count, m = rows.shape
    n = row.shape[1]
    order = np.empty((sets, m), np.int64)
    left = np.empty(sets, np.int64)
    for b in range(count):
        for p in range(sets):
            # Each set is nearly in order already, so sorting by insertion is one pass.
            there = 0
            for j in range(m):
                if rows[p, b, j] < 0:
                    continue
                at = there
                while at > 0 and times[p, b, order[p, at - 1]] > times[p, b, j]:
                    order[p, at] = order[p, at - 1]
                    at -= 1
                order[p, at] = j
                there += 1
            left[p] = there
        for to in range(n - 1, -1, -1):
            best = -1
            for p in range(sets):
                if left[p] and (
                    best < 0 or times[p, b, order[p, left[p] - 1]] >= times[best, b, order[best, left[best] - 1]]
                ):
                    best = p
            if best < 0:
                break
            left[best] -= 1
            j = order[best, left[best]]
            row[b, to] = rows[best, b, j]
            time_ms[b, to] = times[best, b, j]
            kind[b, to] = kinds[best, b, j]
            weight[b, to] = weights[best, b, j]
            session[b, to] = sessions[best, b, j]
