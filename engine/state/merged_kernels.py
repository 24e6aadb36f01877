"""Compiled readers of several slices: one call reads the rings, or the counts, of all of them.

Shapes: P slices, B rows asked for, n edges of each, R item rows, h half-lives, H half-lives of a table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.kernel_cache import record
from engine.state.addresses import doubles_at, ints_at, longs_at, pairs_at
from engine.state.fold_kernels import add_counts
from engine.state.kernels import Doubles, Floats, Ints, Longs, compiled, latest_edges

ROOM = 17  # columns of a slice's ring: see `latest_of_slices`
COUNTS = 4  # columns of a slice's counts: see `counts_of_slices`


@compiled("void(i8[:,::1], i8[::1], b1, i8[:,::1], i8[:,::1], i8[:,::1], f4[:,::1], i4[:,::1])")
def latest_of_slices(
    rooms: Longs,
    rows: Longs,
    by_time: bool,
    row: Longs,
    time_ms: Longs,
    kind: Longs,
    weight: Floats,
    session: Ints,
) -> None:
    """Fills [B, n], which come empty, with the latest edges of `rows` [B] in the rings of all slices.

    Args:
        rooms: [P, ROOM] of each slice the address and length of `degree`, `block`, `neighbor`, `edge`, `generation`,
            `inward` and `outward`, then `size`, `width` and `first`, all as `latest_edges` takes them.
        by_time: several slices may have edges of one row, of which the newest count. The last slice goes first: its
            edges come before those of equal time in the others.
    """
    for p in range(len(rooms) - 1, -1, -1):
        room = rooms[p]
        latest_edges(
            longs_at(room[0], room[1]),
            ints_at(room[2], room[3]),
            ints_at(room[4], room[5]),
            pairs_at(room[6], room[7]),
            room[14],
            room[15],
            ints_at(room[8], room[9]),
            rows,
            ints_at(room[10], room[11]),
            room[16],
            room[1],
            longs_at(room[12], room[13]),
            by_time,
            row,
            time_ms,
            kind,
            weight,
            session,
        )


@record("i8[:,::1]", "i8", "i8[:,::1]")
class Counts(NamedTuple):
    """Decayed counts of all slices, where they lie.

    Attributes:
        rooms: [P, COUNTS] of each slice the address and length of its table of counts [.., H], and of `row_of`.
        half_lives: H.
        doublings: [P, H] by which the counts of each slice are scaled, as `add_counts` takes them.
    """

    rooms: Longs
    half_lives: int
    doublings: Longs


@compiled("f8[:,::1](Counts, i8[::1], i8[::1])")
def counts_of_slices(counts: Counts, under: Longs, rows: Longs) -> Doubles:
    """[R, h] the sum of all slices' counts of `rows` [R] under some half-lives [h], in the order of the slices."""
    total = np.zeros((len(rows), len(under)))
    for p in range(len(counts.rooms)):
        room = counts.rooms[p]
        table = doubles_at(room[0], room[1], counts.half_lives)
        add_counts(table, ints_at(room[2], room[3]), under, counts.doublings[p], rows, total)
    return total
