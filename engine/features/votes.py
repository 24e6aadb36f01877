"""What others did around the items of a session: live co-occurrence, read from the rings at the call.

Every user who lately touched one of the session's items votes for the other items of theirs, the more the more they
share with the session, as in vector-multiplication session-kNN (Ludewig and Jannach, UMUAI 2018), and the more the
nearer in order and in time, as in STAN (Garg et al., SIGIR 2019). What lately followed the session's items counts too.

Shapes: B users, S latest items of each, n voters of an item, V distinct voters, h latest items of each, C candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.features.live import Askers, Rings
from engine.kernel_cache import record
from engine.state.kernels import compiled
from engine.state.merged_kernels import latest_of_slices

VOTES = 7  # ways of counting
COMMON_ITEMS = 0  # the first of them: every common item alike, the latest counting most
SOURCES = 8  # S
DEPTH = 16  # h
_HOUR_MS = 3_600_000.0
_FADE_H = 24.0  # hours after which a voter's say is 1/e
_NEAR = 2.0  # places in order after which it is 1/e

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


@record("i8[:,::1]", "i8[:,:,::1]", "i8[:,::1]", "i8[::1]", "i8[::1]", "i8[:,:,::1]")
class Voters(NamedTuple):
    """Who votes in the sessions of B users.

    Attributes:
        source: [B, S] the latest items, the newest last, -1 where there are fewer.
        voter: [B, S, n] places in `item` of those who touched each, -1 where none.
        item: [V, h] the latest items of each voter, oldest first, -1 padded on the left.
        time_ms: [V] when each voter was last seen.
        now_ms: [B] time of each user's newest event.
        following: [B, S, n] what lately followed each source, -1 where none.
    """

    source: Longs
    voter: Longs
    item: Longs
    time_ms: Longs
    now_ms: Longs
    following: Longs


@compiled("i8[:,:,::1](i8[:,::1], i8[::1], i8[:,::1], i8)")
def edges_around(source: Longs, asked_ms: Longs, rooms: Longs, n: int) -> Longs:
    """[B, S, n] the latest edges of the items `source` [B, S]; what stands where `source` is -1 means nothing.

    Args:
        asked_ms: [B] time of each question, where that is in the past: what came then or later, the answer first of
            all, is left out. Empty: all questions are of now.
        rooms: of the edges of items.
    """
    users, sources = source.shape
    rows = np.maximum(source, 0).reshape(-1)
    row, time_ms = np.full((len(rows), n), -1), np.zeros((len(rows), n), np.int64)
    kind, weight = np.zeros((len(rows), n), np.int64), np.zeros((len(rows), n), np.float32)
    session = np.zeros((len(rows), n), np.int32)
    latest_of_slices(rooms, rows, len(rooms) > 1, row, time_ms, kind, weight, session)
    for r in range(len(rows) if len(asked_ms) else 0):
        for j in range(n):
            if time_ms[r, j] >= asked_ms[r // sources]:
                row[r, j] = -1
    return row.reshape(users, sources, n)


@compiled("i8(i8[:,::1], i8[:], i8[:,:,::1], i8[:,:,::1], i8[::1])")
def _number_voters(source: Longs, users: Longs, voter: Longs, following: Longs, distinct: Longs) -> int:
    """Fills `distinct` with the voters, who become places in it; what is read around no source becomes -1.

    Args:
        source: [B, S], -1 where there is none; `voter` and `following` [B, S, n] are read around each.
        users: [B] who ask: nobody's vote is their own.

    Returns:
        How many they are.
    """
    size = 16
    while size < 2 * voter.size:
        size *= 2
    slot = np.zeros(size, np.int32)  # 1 + place in `distinct`, by a hash of the row
    count = 0
    for b in range(source.shape[0]):
        for s in range(source.shape[1]):
            if source[b, s] < 0:
                voter[b, s, :] = -1
                following[b, s, :] = -1
                continue
            for j in range(voter.shape[2]):
                row = voter[b, s, j]
                if row < 0 or row == users[b]:
                    voter[b, s, j] = -1
                    continue
                at = (row * 0x9E3779B1) & (size - 1)
                while slot[at] != 0 and distinct[slot[at] - 1] != row:
                    at = (at + 1) & (size - 1)
                if slot[at] == 0:
                    distinct[count] = row
                    count += 1
                    slot[at] = count
                voter[b, s, j] = slot[at] - 1
    return count


@compiled("Voters(Askers, Rings)")
def read_voters(askers: Askers, rings: Rings) -> Voters:
    """Reads the rings around the latest items of each user; nobody votes for what is their own already."""
    users, events = askers.row.shape
    source = askers.row[:, max(0, events - SOURCES) :].copy()
    voter = edges_around(source, askers.asked_ms, rings.item_users, rings.users)
    following = edges_around(source, askers.asked_ms, rings.item_next, rings.next)
    distinct = np.empty(voter.size, np.int64)
    count, depth = _number_voters(source, askers.user, voter, following, distinct), min(DEPTH, rings.history)
    item, time_ms = np.full((count, depth), -1), np.zeros((count, depth), np.int64)
    kind, weight = np.zeros((count, depth), np.int64), np.zeros((count, depth), np.float32)
    latest_of_slices(
        rings.user_items, distinct[:count], False, item, time_ms, kind, weight, np.zeros((count, depth), np.int32)
    )  # fmt: skip
    newest, now_ms = np.zeros(count, np.int64), np.zeros(users, np.int64)
    for v in range(count):
        for x in range(depth):
            newest[v] = max(newest[v], time_ms[v, x])
    for b in range(users):
        now_ms[b] = askers.time_ms[b, events - 1]
    return Voters(source, voter, item, newest, now_ms, following)


def count_votes(voters: Voters, candidates: Longs) -> Floats:
    """[B, C, VOTES] float32: each candidate's share of the votes cast for all items; 0 where `candidates` is -1.

    The ways of counting: every common item alike; squared, and fading with the voter's age; fading with the distance
    in order from the common item; the same with age, and only what came after it; squared, with both; what lately
    followed the newest item; what lately followed any, the newer the more.
    """
    counted = np.zeros((*candidates.shape, VOTES), np.float32)
    add_votes(voters, candidates, counted)
    return counted


@compiled("void(Voters, i8[:,:], f4[:,:,::1])")
def add_votes(voters: Voters, candidates: Longs, counted: Floats) -> None:
    """Fills `counted` [B, C, VOTES], which comes as zeros, with what `count_votes` returns; see `Voters`."""
    source, voter, item, following = voters.source, voters.voter, voters.item, voters.following
    time_ms, now_ms = voters.time_ms, voters.now_ms
    users, sources = source.shape
    size = 4
    while size < 2 * candidates.shape[1] + 2:
        size *= 2
    slot = np.zeros(size, np.int32)  # 1 + place of the candidate, by a hash of its row
    agree = np.zeros(len(item))
    met = np.zeros(len(item), np.int64)  # place of the common item nearest to the session's end
    cast = np.empty(VOTES)
    votes = np.empty((candidates.shape[1] + 1, VOTES))  # the last row takes what is no candidate
    touched = np.empty(sources * voter.shape[2], np.int64)
    near = np.exp(-np.arange(item.shape[1]) / _NEAR)
    near[:1] = 0.0  # the common item itself
    for b in range(users):
        slot[:] = 0
        for c in range(candidates.shape[1]):
            if candidates[b, c] >= 0:
                at = candidates[b, c] & (size - 1)
                while slot[at] != 0:
                    at = (at + 1) & (size - 1)
                slot[at] = c + 1
        votes[:] = 0.0
        count = 0
        for back in range(sources):
            s = sources - 1 - back
            row = source[b, s]
            if row < 0:
                break
            weight = 1.0 / (1.0 + back)
            known = 0
            for j in range(following.shape[2]):
                known += following[b, s, j] >= 0
            for j in range(following.shape[2]):
                if following[b, s, j] >= 0:
                    at = following[b, s, j] & (size - 1)
                    while slot[at] != 0 and candidates[b, slot[at] - 1] != following[b, s, j]:
                        at = (at + 1) & (size - 1)
                    c = slot[at] - 1  # the last row where it is none
                    if back == 0:
                        votes[c, 5] += 1.0 / known
                    votes[c, 6] += weight / known
            newer = False
            for other in range(s + 1, sources):
                newer = newer or source[b, other] == row
            if newer:
                continue
            for j in range(voter.shape[2]):
                v = voter[b, s, j]
                if v < 0:
                    continue
                if agree[v] == 0.0:
                    touched[count] = v
                    count += 1
                    met[v] = -1
                    for x in range(item.shape[1] - 1, -1, -1):
                        if item[v, x] == row:
                            met[v] = x
                            break
                agree[v] += weight
        for t in range(count):
            v = touched[t]
            alike = agree[v]
            agree[v] = 0.0
            fresh = np.exp(-max(0.0, (now_ms[b] - time_ms[v]) / _HOUR_MS) / _FADE_H)
            for x in range(item.shape[1]):
                if item[v, x] < 0:
                    continue
                at = item[v, x] & (size - 1)
                while slot[at] != 0 and candidates[b, slot[at] - 1] != item[v, x]:
                    at = (at + 1) & (size - 1)
                c = slot[at] - 1
                # Whoever has had so many items since that the common one is not at hand: nothing is near it.
                away = x - met[v] if met[v] >= 0 else 0
                close = near[abs(away)]
                votes[c, 0] += alike
                votes[c, 1] += alike * alike * fresh
                votes[c, 2] += alike * close
                if away > 0:
                    votes[c, 3] += alike * close * fresh
                votes[c, 4] += alike * alike * close * fresh
        cast[:] = 0.0
        for c in range(len(votes)):
            cast += votes[c]
        for c in range(candidates.shape[1]):
            if candidates[b, c] >= 0:
                for way in range(VOTES):
                    if cast[way] > 0.0:
                        counted[b, c, way] = np.float32(votes[c, way] / cast[way])
