"""Eight-bit copies of vectors: a scan of all rows by them tells which few may be among the best.

Products of bytes cost a quarter of those of floats, and most of what is left of a scan is the picking. So a row is
picked by its code's product, which is off by at most a known error: all rows are kept whose score, that error granted,
may be one of the k best. Exact scores then decide among them, so nothing that a scan of the vectors finds is missed.

Shapes: C capacity, S slots in use, D dimensions, B queries, k results, P picks that there is room for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.index.best import key_of, write_best
from engine.numeric.dense import inner, rounding
from engine.state.kernels import compiled

Bytes = NDArray[np.int8]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]

_MOST = 127  # of a code's entries
_QUERIES = 64  # scanned for together
_BLOCK_SCORES = 2**19  # products at a time, 2 MiB: after each block other threads may take the interpreter
_SAMPLE = 1024  # slots that tell beforehand where the k-th score is about to be
_PICKS = 4096  # room for picks of a query, where k is small
_CHUNK = 64  # products looked at for any that counts


@dataclass(frozen=True)
class Picks:
    """Slots that may be among the best of each query.

    Attributes:
        slot: [B, P] int32, of which `count` matter.
        count: [B] int64; -1 where there were more than there was room for: look at all of them.
    """

    slot: Ints
    count: Longs


class Codes:
    """Codes of vectors by slot, each with a scale of its own."""

    def __init__(self, dim: int) -> None:
        self._code = np.empty((0, dim), np.int8)  # [C, D]
        self._scale = np.empty(0, np.float32)  # [C], a vector is about its code times this
        self._error = 0.0  # the largest distance between a vector and its code, ever
        self._length = 0.0  # of the longest vector, ever

    def off_by(self, length: Floats) -> Floats:
        """[B] by how much two ways to compute a product with a query of this `length` [B] may differ at most."""
        return (rounding(self._code.shape[1]) * self._length * length).astype(np.float32)

    def grow(self, capacity: int) -> None:
        """Makes room for slots 0..capacity-1; what is there stays."""
        code = np.zeros((capacity, self._code.shape[1]), np.int8)
        scale = np.zeros(capacity, np.float32)
        code[: len(self._code)], scale[: len(self._scale)] = self._code, self._scale
        self._code, self._scale = code, scale

    def put(self, slots: Longs, vectors: Floats) -> None:
        """Encodes vectors [R, D] at distinct slots [R]."""
        error, length = _encode(np.ascontiguousarray(vectors), slots, self._code, self._scale)
        self._error = max(self._error, float(error.max(initial=0)))
        self._length = max(self._length, float(length.max(initial=0)))

    def move(self, source: Longs, target: Longs) -> None:
        """What lies at slots `source` [R] goes to `target` [R] as well."""
        self._code[target], self._scale[target] = self._code[source], self._scale[source]

    def pick(self, queries: Floats, size: int, k: int, floor: Floats | None = None) -> Picks:
        """Slots among the first `size` that may hold one of the k best for queries [B, D].

        Args:
            floor: [B] scores; slots below are not asked for.
        """
        parts = [
            self._pick(queries[at : at + _QUERIES], size, k, None if floor is None else floor[at : at + _QUERIES])
            for at in range(0, len(queries), _QUERIES)
        ]
        if len(parts) == 1:
            return parts[0]
        return Picks(np.concatenate([part.slot for part in parts]), np.concatenate([part.count for part in parts]))

    def _pick(self, queries: Floats, size: int, k: int, floor: Floats | None) -> Picks:
        batch, dim = queries.shape
        code, scale = np.empty((batch, dim), np.int8), np.empty(batch, np.float32)
        error, length = _encode(queries, np.arange(batch), code, scale)
        # [B] that a product is off by
        slack: Floats = (self._error * length + (self._length + self._error) * error).astype(np.float32)
        slack += self.off_by(length)
        bar: Floats = self._bar(code, scale, size, k) if floor is None else (floor - slack).astype(np.float32)
        picks = self._scan(code, scale, slack, bar, size, k)
        needed = _keep_best(picks.value, picks.slot, picks.count, slack, k)
        # The bar may have been a guess: where it was too high it is known by now how low it must be.
        again = np.flatnonzero(bar > needed) if floor is None else ()
        if len(again):
            more = self._scan(code[again], scale[again], slack[again], needed[again], size, k)
            _keep_best(more.value, more.slot, more.count, slack[again], k)
            picks.slot[again], picks.count[again] = more.slot, more.count
        return Picks(picks.slot, picks.count)

    def _bar(self, code: Bytes, scale: Floats, size: int, k: int) -> Floats:
        """[B] products that some more than k slots will reach, judged by a sample."""
        every = max(1, size // _SAMPLE)
        sample = np.ascontiguousarray(self._code[:size:every])
        wanted = k / every
        rank = int(wanted + 4 * np.sqrt(wanted) + 4)  # of the sample: by chance it is better than its share
        if rank >= len(sample):
            return np.full(len(code), -np.inf, np.float32)
        product = _products(code, sample).astype(np.float32) * self._scale[:size:every]
        return np.partition(product, -rank, axis=1)[:, -rank] * scale

    def _scan(self, code: Bytes, scale: Floats, slack: Floats, bar: Floats, size: int, k: int) -> _Valued:
        batch, room = len(code), max(_PICKS, 4 * k)
        found = _Valued(
            np.empty((batch, room), np.int32), np.empty((batch, room), np.float32), np.zeros(batch, np.int64)
        )
        bar = bar.copy()
        block = max(_SAMPLE, _BLOCK_SCORES // batch)
        for first in range(0, size, block):
            product = _products(code, self._code[first : min(first + block, size)])
            _select(product, first, self._scale, scale, slack, k, bar, found.slot, found.value, found.count)
        return found


@dataclass(frozen=True)
class _Valued:
    """Picks with their products: `value` [B, P]."""

    slot: Ints
    value: Floats
    count: Longs


def _products(queries: Bytes, codes: Bytes) -> Ints:
    """[B, n] of queries [B, D] and codes [n, D]."""
    # The only product of bytes that either library has; the tests compare it with one of integers.
    product: Ints = torch._int_mm(torch.from_numpy(queries), torch.from_numpy(codes).T).numpy()
    return product


@compiled("UniTuple(f4[::1], 2)(f4[:,::1], i8[::1], i1[:,::1], f4[::1])")
def _encode(vectors: Floats, slots: Longs, code: Bytes, scale: Floats) -> tuple[Floats, Floats]:
    """Fills `code` and `scale` at `slots` [R]; returns how far (L2) each vector is from its code, and its length."""
    error, length = np.empty(len(vectors), np.float32), np.empty(len(vectors), np.float32)
    for r in range(len(vectors)):
        most = np.float32(0.0)
        for d in range(vectors.shape[1]):
            most = max(most, abs(vectors[r, d]))
        unit = most / np.float32(_MOST) if most > 0.0 else np.float32(1.0)
        scale[slots[r]] = unit
        off, square = 0.0, 0.0
        for d in range(vectors.shape[1]):
            entry = np.rint(vectors[r, d] / unit)
            code[slots[r], d] = np.int8(entry)
            off += (vectors[r, d] - entry * unit) ** 2
            square += vectors[r, d] ** 2
        error[r], length[r] = np.sqrt(off), np.sqrt(square)
    return error, length


@compiled("f4(f4[::1], i8, i8)")
def _kth(value: Floats, count: int, k: int) -> Any:
    """The k-th greatest of the first `count`, k at least 1 and at most that."""
    return np.partition(value[:count], count - k)[count - k]


@compiled("i8(f4[::1], i4[::1], i8, f4)")
def _cut(value: Floats, slot: Ints, count: int, bar: Any) -> int:
    """Keeps those that reach `bar`, in order; returns how many."""
    kept = 0
    for at in range(count):
        if value[at] >= bar:
            value[kept], slot[kept] = value[at], slot[at]
            kept += 1
    return kept


@compiled("b1(i4[::1], f4[::1], f4)")
def _any_reaches(product: Ints, scale: Floats, low: Any) -> bool:
    """Whether any of the scaled products reaches `low`. It has no exit before the end, so that it is all wide steps."""
    any_does = np.int32(0)
    for j in range(len(product)):
        any_does |= np.int32(1) if np.float32(product[j]) * scale[j] >= low else np.int32(0)
    return any_does != 0


@compiled("void(i4[:,::1], i8, f4[::1], f4[::1], f4[::1], i8, f4[::1], i4[:,::1], f4[:,::1], i8[::1])")
def _select(
    product: Ints,
    first: int,
    scale: Floats,
    unit: Floats,
    slack: Floats,
    k: int,
    bar: Floats,
    slot: Ints,
    value: Floats,
    count: Longs,
) -> None:
    """Adds to each query's picks the slots first, first + 1, ... that reach its bar, which rises as better ones come.

    Args:
        product: [B, n] of codes.
        scale, unit: of each slot's code and of each query's.
        slack: [B] that a scaled product may be off by.
    """
    batch, width = product.shape
    room = slot.shape[1]
    for b in range(batch):
        for start in range(0, width, _CHUNK):
            end = min(start + _CHUNK, width)
            low = bar[b] / unit[b]
            part, scales = product[b, start:end], scale[first + start : first + end]
            if not _any_reaches(part, scales, low):
                continue
            if count[b] > room - _CHUNK:
                bar[b] = max(bar[b], _kth(value[b], count[b], k) - 2 * slack[b])
                count[b] = _cut(value[b], slot[b], count[b], bar[b])
                if count[b] > room - room // 4:
                    count[b] = -1
            if count[b] < 0:
                break
            at = count[b]
            for j in range(len(part)):
                if np.float32(part[j]) * scales[j] >= low:
                    slot[b, at] = first + start + j
                    value[b, at] = np.float32(part[j]) * scales[j] * unit[b]
                    at += 1
            count[b] = at


@compiled("f4[::1](f4[:,::1], i4[:,::1], i8[::1], f4[::1], i8)")
def _keep_best(value: Floats, slot: Ints, count: Longs, slack: Floats, k: int) -> Any:
    """Drops the picks that can't be among the k best; returns how high a product must be to be among them, [B]."""
    bar = np.empty(len(count), np.float32)
    for b in range(len(count)):
        if count[b] < 0:
            bar[b] = np.inf  # there is no room for more
        elif count[b] < k:
            bar[b] = -np.inf
        else:
            bar[b] = _kth(value[b], count[b], k) - 2 * slack[b]
            count[b] = _cut(value[b], slot[b], count[b], bar[b])
    return bar


@compiled("void(f4[:,::1], f4[:,::1], i8[::1], i4[:,::1], i8[::1], f4[::1], i8[:,::1], f4[:,::1])")
def rescore(
    queries: Floats, vectors: Floats, rows: Longs, slot: Ints, count: Longs, floor: Floats, row: Longs, score: Floats
) -> None:
    """Fills `row` and `score` [B, k] with the best of each query's picks by the vectors, ties to the lower row.

    Args:
        rows: [S or more] row of each slot, below 2**31.
        floor: [B] scores below which nothing is wanted.
    """
    key = np.empty(slot.shape[1], np.int64)
    for b in range(len(queries)):
        n = 0
        for at in range(count[b]):
            s = slot[b, at]
            dot = inner(vectors[s], queries[b])
            if dot >= floor[b]:
                key[n] = key_of(dot, rows[s])
                n += 1
        write_best(key, n, row[b], score[b])
