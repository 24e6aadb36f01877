"""The compiled part of `Contributions`: finds what a user has added to an item, and bounds what its next event adds.

Shapes: E events, R pairs remembered, H half-lives, K edges a ring keeps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.state.kernels import BLOCK, BLOCK_BITS, RING, Doubles, Ints, Longs, RingArrays, compiled

KEY, PAIR, SEEN, TIME = 0, 1, 2, 3  # columns of `Contributions.table`
ROWS, FREE = 0, 1  # how many rows were ever used, and how many of them are free
_TAG = 0xFFFF
_ODD = np.int64(-0x61C8864680B583EB)  # 2**64 over the golden ratio

# Columns of the events, each [E]: user, item, time, time in popularity, clock, kind, offset, and the event before of
# the same user and of the same item, -1 where there is none in the batch.
Events = tuple[Longs, Longs, Longs, Longs, Longs, NDArray[np.int8], Longs, Longs, Longs]
EVENTS = "Tuple((i8[::1], i8[::1], i8[::1], i8[::1], i8[::1], i1[::1], i8[::1], i8[::1], i8[::1]))"
# Table, sums, slots, free rows and numbers of rows of a `Contributions`.
Pairs = tuple[Longs, Doubles, Ints, Longs, Longs]
PAIRS = "Tuple((i8[:,::1], f8[:,::1], i4[::1], i8[::1], i8[::1]))"


def previous_of(rows: Longs) -> Longs:
    """[E] the last event before each that has the same row, -1 where there is none."""
    before = np.empty(len(rows), np.int64)
    find_previous(rows, before)
    return before


def least_first(table: Longs, sums: Doubles, half_life_ms: int, now_ms: int) -> Longs:
    """[R] the order of pairs by what they have added by now under the first half-life, the longest idle first."""
    return np.lexsort((table[:, SEEN], weight_left(table, sums, half_life_ms, now_ms)))


def pair_keys(user: Longs, item: Longs) -> Longs:
    """[E] the pair of each user and item, as `Contributions.table` has it."""
    return (user + 1) << 32 | item


@compiled("void(i8[::1], i8[::1])")
def find_previous(rows: Longs, before: Longs) -> None:
    """Fills `before` as `previous_of` says."""
    size = 4
    while size < 2 * len(rows):
        size *= 2
    slot = np.zeros(size, np.int64)  # 1 + the newest event of a row, by a hash of the row
    for e in range(len(rows)):
        at = ((rows[e] * _ODD) >> 20) & (size - 1)
        while slot[at] != 0 and rows[slot[at] - 1] != rows[e]:
            at = (at + 1) & (size - 1)
        before[e] = slot[at] - 1
        slot[at] = e + 1


@compiled("i8(i8)")
def key_of(pair: int) -> int:
    """A number that is another for each pair, 0 for none, and whose low bits look drawn by chance."""
    mixed = np.int64(pair) * _ODD
    return int(mixed ^ ((mixed >> 32) & 0xFFFF_FFFF))


@compiled("void(i8[::1], i8[:,::1])")
def fill_keys(pairs: Longs, keys: Longs) -> None:
    """Fills `keys` [R, 2] with the key and the pair of each, as an open-addressing table takes them."""
    for r in range(len(pairs)):
        keys[r, KEY], keys[r, PAIR] = key_of(pairs[r]), pairs[r]


@compiled("i8(i8[:,::1], i4[::1], i8)")
def place_of(table: Longs, slot: Ints, pair: int) -> int:
    """The slot where a pair is, or the empty one where it would be."""
    mask = len(slot) - 1
    at = key_of(pair) & mask
    while slot[at] != 0 and table[slot[at] - 1, PAIR] != pair:
        at = (at + 1) & mask
    return at


@compiled("void(i8[:,::1], i4[::1], i8[::1], i8[::1])")
def find_pairs(table: Longs, slot: Ints, pairs: Longs, rows: Longs) -> None:
    """Fills `rows` [R] with the rows of pairs, -1 where one is not remembered."""
    for r in range(len(pairs)):
        rows[r] = slot[place_of(table, slot, pairs[r])] - 1


@compiled("f8[::1](i8[:,::1], f8[:,::1], i8, i8)")
def weight_left(table: Longs, sums: Doubles, half_life_ms: int, now_ms: int) -> Doubles:
    """[R] what each pair has added under the first half-life, as of now."""
    left = np.empty(len(table))
    for r in range(len(table)):
        age = float(now_ms - table[r, TIME]) / float(half_life_ms)
        left[r] = sums[r, 0] * np.exp2(-age)
    return left


@compiled("void(f8[::1], i8[::1], f8, i8)")
def add_aged(found: Doubles, half_lives_ms: Longs, weight: float, age_ms: int) -> None:
    """Adds a weight to `found` [H] as it has decayed since; an age below 0 is none."""
    for h in range(len(half_lives_ms)):
        found[h] += weight * np.exp2(-float(max(0, age_ms)) / float(half_lives_ms[h]))


@compiled(
    "f8(i8[::1], i4[::1], i4[::1], i8[:,::1], i8, i8, i4[::1], i8, i8, i8, i8, i8[::1], i8[::1], i8[::1], i1[::1],"
    " i8[::1], f8[::1], f8[::1])"
)
def add_matches(
    degree: Longs,
    block: Ints,
    neighbor: Ints,
    edge: Longs,
    size: int,
    width: int,
    generation: Ints,
    node: int,
    other: int,
    event: int,
    now_ms: int,
    before: Longs,
    others: Longs,
    time_ms: Longs,
    kind: NDArray[np.int8],
    half_lives_ms: Longs,
    kind_weight: Doubles,
    found: Doubles,
) -> float:
    """Adds what the edges node -> other among the last K before an event weigh at its moment to `found` [H].

    The edges are the earlier events of the batch, which the ring does not have yet, and then those of the ring: the
    sum depends on the log alone, however it was cut into batches.

    Args:
        degree, block, neighbor, edge, size, width, generation: of the ring, one by one: to take a tuple of arrays apart
            for each event costs more than all that is done here.
        now_ms: the clock at the event.
        before: [E] the event before each in the batch that has the same node.
        others: [E] what the edge of each event leads to.

    Returns:
        The greatest weight among them; 0 where there is none.
    """
    greatest = 0.0
    passed = 0
    at = before[event]
    while at >= 0 and passed < size:
        if others[at] == other and kind_weight[kind[at]] > 0.0:
            weight = kind_weight[kind[at]]
            add_aged(found, half_lives_ms, weight, now_ms - time_ms[at])
            greatest = max(greatest, weight)
        at = before[at]
        passed += 1
    slot = degree[node] % size
    home = np.int64(0)
    for step in range(min(size - passed, degree[node])):
        slot = slot - 1 if slot > 0 else size - 1
        if step == 0 or (slot & (BLOCK - 1)) == BLOCK - 1 or slot == size - 1:
            home = np.int64(block[node * width + (slot >> BLOCK_BITS)]) << BLOCK_BITS
        place = home + (slot & (BLOCK - 1))
        if neighbor[place] != other + 1:
            continue
        if len(generation) and (((edge[place, 1] >> 32) ^ generation[other]) & _TAG) != 0:
            continue
        weight = kind_weight[edge[place, 0] & 0xFF]
        if weight > 0.0:
            add_aged(found, half_lives_ms, weight, now_ms - (edge[place, 0] >> 8))
            greatest = max(greatest, weight)
    return greatest


@compiled(f"i8({RING}, {RING}, {PAIRS}, i8[::1], f8[::1], f8, {EVENTS}, i8, f8[:,::1])")
def count_contributions(
    user_items: RingArrays,
    item_users: RingArrays,
    pairs: Pairs,
    half_lives_ms: Longs,
    kind_weight: Doubles,
    most: float,
    events: Events,
    first: int,
    amounts: Doubles,
) -> int:
    """Fills `amounts` [E, H] with the weight of each event from the `first` on; see `Contributions.count`.

    Returns:
        The event whose pair has no row and can get none; E where all are counted.
    """
    table, sums, slot, free, used = pairs
    user, item, time_ms, counted_ms, clock_ms, kind, offset, before_user, before_item = events
    u_degree, u_block, _, u_neighbor, u_edge, u_size, u_width, _, _, u_generation = user_items
    i_degree, i_block, _, i_neighbor, i_edge, i_size, i_width, _, _, i_generation = item_users
    half_lives = len(half_lives_ms)
    by_user, by_item = np.empty(half_lives), np.empty(half_lives)
    for e in range(first, len(user)):
        weight = kind_weight[kind[e]]
        for h in range(half_lives):
            amounts[e, h] = weight
        if weight == 0.0:
            continue
        pair = ((user[e] + 1) << 32) | item[e]
        place = place_of(table, slot, pair)
        row = np.int64(slot[place]) - 1
        if row < 0:
            # Most pairs come once. To look for edges here, and not in a function of its own, costs a fifth: a call
            # counts references to each of its arrays.
            comes_again = False
            passed, at = 0, before_user[e]
            while at >= 0 and passed < u_size and not comes_again:
                comes_again = item[at] == item[e]
                passed, at = passed + 1, before_user[at]
            for back in range(1, min(u_size - passed, u_degree[user[e]]) + 1):
                edge_slot = (u_degree[user[e]] - back) % u_size
                home = np.int64(u_block[user[e] * u_width + (edge_slot >> BLOCK_BITS)])
                if u_neighbor[(home << BLOCK_BITS) + (edge_slot & (BLOCK - 1))] == item[e] + 1:
                    comes_again = True
                    break
            passed, at = 0, before_item[e]
            while at >= 0 and passed < i_size and not comes_again:
                comes_again = user[at] == user[e]
                passed, at = passed + 1, before_item[at]
            for back in range(1, min(i_size - passed, i_degree[item[e]]) + 1):
                if comes_again:
                    break
                edge_slot = (i_degree[item[e]] - back) % i_size
                home = np.int64(i_block[item[e] * i_width + (edge_slot >> BLOCK_BITS)])
                comes_again = i_neighbor[(home << BLOCK_BITS) + (edge_slot & (BLOCK - 1))] == user[e] + 1
            if not comes_again:
                continue
            for h in range(half_lives):
                by_user[h], by_item[h] = 0.0, 0.0
            greatest = max(
                add_matches(
                    u_degree, u_block, u_neighbor, u_edge, u_size, u_width, u_generation, user[e], item[e], e,
                    clock_ms[e], before_user, item, time_ms, kind, half_lives_ms, kind_weight, by_user,
                ),
                add_matches(
                    i_degree, i_block, i_neighbor, i_edge, i_size, i_width, i_generation, item[e], user[e], e,
                    clock_ms[e], before_item, user, time_ms, kind, half_lives_ms, kind_weight, by_item,
                ),
            )  # fmt: skip
            if greatest == 0.0:
                continue
            if used[FREE] > 0:
                used[FREE] -= 1
                row = free[used[FREE]]
            elif used[ROWS] < len(table):
                row = used[ROWS]
                used[ROWS] += 1
            else:
                return e
            slot[place] = np.int32(row + 1)
            table[row, KEY], table[row, PAIR] = key_of(pair), pair
            # What had no effect is in the rings as well: nobody has added more than the bound.
            for h in range(half_lives):
                sums[row, h] = min(max(by_user[h], by_item[h]), most * max(greatest, weight))
        else:
            age_ms = clock_ms[e] - table[row, TIME]
            for h in range(half_lives):
                sums[row, h] *= np.exp2(-float(age_ms) / float(half_lives_ms[h]))
        table[row, SEEN], table[row, TIME] = offset[e] + 1, clock_ms[e]
        for h in range(half_lives):
            late = np.exp2(-float(clock_ms[e] - counted_ms[e]) / float(half_lives_ms[h]))
            room = max(0.0, most * weight - sums[row, h])
            if weight * late > room:
                amounts[e, h] = room / late
            sums[row, h] += min(weight * late, room)
    return len(user)
