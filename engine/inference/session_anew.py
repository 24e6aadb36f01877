"""Whole sessions through all blocks: what is computed where nothing of a session is kept.

The events of all sessions are laid out one after the other, without padding. What a position does alone, or with the
positions that it sees, is compiled. The products of a layer are made for a few events of one session at a time, always
for as many: how a product is rounded depends on how many rows it has, and a query must not depend on which others are
encoded with it. The result is that of `SequenceEncoder.newest`.

Shapes: B sessions, L events of each (oldest first, padded on the left), P events of all, R rows that go on to the next
layer, S pairs of an event and one that it sees, H heads, d width; n and m inputs and outputs of a layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.inference.session_forward import SessionForward, gap_row
from engine.numeric.dense import exp_all, gelu_all, layer_norm
from engine.state.kernels import compiled
from engine.state.ring import Neighbors

_AT_ONCE = 8  # events of a session that go through a layer together

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]


def compute_anew(
    weights: SessionForward, events: Neighbors, table: Tensor, slots: Longs, kept: Tensor, room: int, state: Tensor
) -> None:
    """Computes all positions of each session, and keeps the last `room` as if there were that many.

    Args:
        events: [B, L].
        table: [M, d] item embeddings.
        slots: [B] where the session lies in `kept`.
        kept: [slots * N * room, 2 * d] keys and values; `room` positions of a session and block, the newest last.
        state: [slots, d] gets the state at the last position.
    """
    row, time_ms, kind, _, session = events.arrays()
    there = row >= 0
    there[:, -1] = True  # where a session has no event at all, too, there is a last position
    of, at = (place.astype(np.int64) for place in there.nonzero())  # [P] session and column of each
    first = np.searchsorted(of, np.arange(len(row) + 1))  # [B + 1]
    last = first[1:] - 1  # [B]
    x = np.empty((len(of), table.shape[1]), np.float32)
    _inputs(row, kind, session, table.numpy(), of, at, weights.input, x)
    seen = np.empty(len(of), np.int64)
    pairs = _count_seen(of, at, first, len(weights.distance), seen)
    bias = np.empty((pairs, weights.heads), np.float32)
    _fill_bias(time_ms, session, of, at, seen, weights.distance, weights.gap, bias)
    end, every = seen.cumsum(), np.arange(len(of))
    layout = _Layout.of(first, _AT_ONCE)
    blocks = len(weights.qkv)
    for n in range(blocks):
        asked = last if n == blocks - 1 else every  # nobody asks for the others
        made = layout.product(_normed(x, weights.norms[n, 0], weights.norms[n, 1], weights.eps), weights.qkv[n, 1:])
        made += weights.qkv[n, 0]
        _keep(made, of, at, row.shape[1], slots, n, blocks, room, kept.numpy())
        mixed = np.zeros((len(asked), x.shape[1]), np.float32)
        _attend(made, asked, seen, end, bias, weights.heads, mixed)
        x = x[asked]
        if n == blocks - 1:
            layout = _Layout.of(np.arange(len(row) + 1), 1)  # from here on one event of each session
        x += layout.product(mixed, weights.out[n, 1:])
        x += weights.out[n, 0]
        hidden = layout.product(_normed(x, weights.norms[n, 2], weights.norms[n, 3], weights.eps), weights.up[n, 1:])
        hidden += weights.up[n, 0]
        gelu_all(hidden.reshape(-1))
        x += layout.product(hidden, weights.down[n, 1:])
        x += weights.down[n, 0]
    state.numpy()[slots] = x


@dataclass(frozen=True)
class _Layout:
    """Rows of B sessions in groups of `size`, each group of one session, with zeros behind its last row.

    Attributes:
        place: of each row among those of all groups.
        groups: how many there are.
    """

    size: int
    place: Longs
    groups: int

    @classmethod
    def of(cls, first: Longs, size: int) -> _Layout:
        """The rows of session b are first[b] : first[b + 1]."""
        count = np.diff(first)
        groups = -(-count // size)
        begin = np.concatenate([[0], np.cumsum(groups)[:-1]]) * size
        place = np.repeat(begin - first[:-1], count) + np.arange(first[-1])
        return cls(size, place, int(groups.sum()))

    def product(self, x: Floats, weight: Floats) -> Floats:
        """Rows [R, n] @ weight [n, m], group by group."""
        filled = np.zeros((self.groups * self.size, x.shape[1]), np.float32)
        filled[self.place] = x
        made: Floats = np.matmul(filled.reshape(self.groups, self.size, -1), weight)
        return made.reshape(len(filled), -1)[self.place]


def _normed(x: Floats, gain: Floats, bias: Floats, eps: float) -> Floats:
    made = np.empty_like(x)
    _norm_rows(x, gain, bias, eps, made)
    return made


@compiled("void(f4[:,::1], f4[::1], f4[::1], f4, f4[:,::1])", any_order=True)
def _norm_rows(x: Floats, gain: Floats, bias: Floats, eps: float, made: Floats) -> None:
    for r in range(len(x)):
        layer_norm(x[r], gain, bias, eps, made[r])


@compiled("void(i8[:,:], i8[:,:], i4[:,:], f4[:,::1], i8[::1], i8[::1], f4[:,::1], f4[:,::1])", any_order=True)
def _inputs(
    row: Longs, kind: Longs, session: Ints, table: Floats, of: Longs, at: Longs, input_: Floats, x: Floats
) -> None:
    """Fills x [P, d] with what goes into the first block; arguments as in `SessionForward`."""
    kinds, d = len(input_) - 2, x.shape[1]
    root = np.float32(math.sqrt(d))
    for p in range(len(of)):
        b, j = of[p], at[p]
        vector = table[max(row[b, j], 0)]
        starts = 1 if j == 0 or row[b, j - 1] < 0 or session[b, j] != session[b, j - 1] else 0
        of_kind, of_start = input_[min(max(kind[b, j], 0), kinds - 1)], input_[kinds + starts]
        for i in range(d):
            x[p, i] = vector[i] * root + of_kind[i] + of_start[i]


@compiled("i8(i8[::1], i8[::1], i8[::1], i8, i8[::1])")
def _count_seen(of: Longs, at: Longs, first: Longs, window: int, seen: Longs) -> int:
    """Fills `seen` [P] with how many events each sees, itself the last of them; returns S."""
    total = 0
    for p in range(len(of)):
        begin = first[of[p]]
        begin = max(begin, p - window + 1)
        while at[p] - at[begin] >= window:
            begin += 1
        seen[p] = p - begin + 1
        total += seen[p]
    return total


@compiled("void(i8[:,:], i4[:,:], i8[::1], i8[::1], i8[::1], f4[:,::1], f4[:,::1], f4[:,::1])", any_order=True)
def _fill_bias(
    time_ms: Longs, session: Ints, of: Longs, at: Longs, seen: Longs, distance: Floats, gap: Floats, bias: Floats
) -> None:
    """Fills `bias` [S, H]: the same in every block."""
    heads, s = bias.shape[1], 0
    for p in range(len(of)):
        b, i = of[p], at[p]
        for q in range(p - seen[p] + 1, p + 1):
            j = at[q]
            for h in range(heads):
                bias[s, h] = distance[i - j, h]
            if len(gap):
                apart = gap_row(time_ms[b, i] - time_ms[b, j], session[b, i] == session[b, j], len(gap))
                for h in range(heads):
                    bias[s, h] += gap[apart, h]
            s += 1


@compiled("void(f4[:,::1], i8[::1], i8[::1], i8, i8[::1], i8, i8, i8, f4[:,::1])")
def _keep(
    made: Floats, of: Longs, at: Longs, length: int, slots: Longs, block: int, blocks: int, room: int, kept: Floats
) -> None:
    """Copies keys and values of the positions that there is room for; `made` is [P, 3 * d]."""
    d = kept.shape[1] // 2
    for p in range(len(of)):
        back = length - 1 - at[p]
        if back < room:
            kept[(slots[of[p]] * blocks + block) * room + room - 1 - back] = made[p, d:]


@compiled("void(f4[:,::1], i8[::1], i8[::1], i8[::1], f4[:,::1], i8, f4[:,::1])", any_order=True)
def _attend(made: Floats, asked: Longs, seen: Longs, end: Longs, bias: Floats, heads: int, mixed: Floats) -> None:
    """Adds to `mixed` [R, d] what the positions `asked` [R] attend to.

    Args:
        made: [P, 3 * d] queries, keys and values.
        end: [P] one past the last pair of each in `bias`.
    """
    d = mixed.shape[1]
    width = d // heads
    scale = np.float32(1 / math.sqrt(width))
    score = np.empty(seen.max(), np.float32)
    for r in range(len(asked)):
        p = asked[r]
        n, begin = seen[p], end[p] - seen[p]
        for h in range(heads):
            query = made[p, h * width : (h + 1) * width]
            keys = made[p - n + 1 : p + 1, d + h * width : d + (h + 1) * width]
            values = made[p - n + 1 : p + 1, 2 * d + h * width : 2 * d + (h + 1) * width]
            into = mixed[r, h * width : (h + 1) * width]
            for s in range(n):
                total = np.float32(0)
                for i in range(width):
                    total += query[i] * keys[s, i]
                score[s] = total * scale + bias[begin + s, h]
            most = score[0]
            for s in range(1, n):
                most = max(most, score[s])
            total = exp_all(score[:n], most)
            for s in range(n):
                share = score[s] / total
                for i in range(width):
                    into[i] += share * values[s, i]
