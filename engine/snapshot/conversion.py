"""Converts a slice that was saved under other settings: as near as can be to having always had the new ones.

Shapes: N items, H half-lives, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.snapshot.rings import RINGS, Longs, RingChange, changed_ring, kinds_by_name, kinds_held
from engine.snapshot.settings import PARTITIONS
from engine.state.contribution_kernels import PAIR, least_first, pair_keys
from engine.state.kernels import ITEM
from engine.state.popularity import half_lives_ms, landmark_of
from engine.state.session_users import kept_sessions
from engine.state.slice import SavedSlice

_ROW = 0xFFFF_FFFF
_NO_ITEM = np.int64(-1) << 32  # the key of a last item that is gone: no row has the generation -1
# Of each sort of node: the setting that limits it, and its tables but those of the rings.
_NODES = {
    "users": ("state.max_users", ("users.generation", "users.seen", "sessions")),
    "items": ("state.max_items", ("items.generation", "items.seen", "popularity")),
    "targets": ("state.max_targets", ("targets.generation", "targets.seen")),
}


class OtherSettingsError(Exception):
    """A slice can't be converted; names the setting."""


def converted(saved: SavedSlice, was: Mapping[str, Any], now: Mapping[str, Any]) -> SavedSlice:
    """The slice as the settings `now` have it.

    Longer rings have room for what is to come. Shorter ones keep the newest edges, and lower limits the nodes that were
    named last: the same that would be left had the limits been so low when the newest events came.

    Args:
        was, now: fingerprints, see `settings.fingerprint`; `settings.slices_refused` has nothing against the two.

    Raises:
        OtherSettingsError: the slice holds events of a kind that is gone.
    """
    for setting in ("events.kinds", "events.relations"):
        _check_kinds(saved, setting, [name for name, _ in was[setting]], dict(now[setting]))
    ids = {"users": saved.users, "items": saved.items, "targets": saved.targets}
    keep = {sort: _kept(saved, sort, ids[sort], _limit(sort, now)) for sort in _NODES}
    row_of = {sort: _row_of(rows, len(ids[sort])) for sort, rows in keep.items()}
    for ring, (own, size, kinds, leads_to) in RINGS.items():
        change = RingChange(
            was[size],
            now[size],
            keep[own],
            row_of[leads_to],
            kinds_by_name(dict(was[kinds]), dict(now[kinds])),
            renewed=kinds == "events.relations",
        )
        saved = changed_ring(saved, ring, change)
    for sort, rows in keep.items():
        if rows is not None:
            saved = _with_rows(saved, sort, rows)
    if row_of["items"] is not None:
        saved = _with_last_items(saved, row_of["items"])
    saved = _with_contributions(saved, row_of["users"], row_of["items"])
    saved = _with_session_users(saved, _limit("users", now))
    saved = _with_half_lives(saved, was["state.half_lives_s"], now["state.half_lives_s"])
    return _with_room_for_pairs(saved, now["state.repeated_pairs"], now["state.half_lives_s"][0])


def _check_kinds(saved: SavedSlice, setting: str, was: Sequence[str], now: Mapping[str, float]) -> None:
    held: set[int] = set()
    if any(name not in now for name in was):
        rings = (ring for ring, (_, _, kinds, _) in RINGS.items() if kinds == setting)
        held = set().union(*(kinds_held(saved, ring) for ring in rings))
    gone = [was[number] for number in sorted(held) if was[number] not in now]
    if gone:
        raise OtherSettingsError(
            f"{setting} no longer has {', '.join(map(repr, gone))}, of which it holds events: put it back, its weight"
            " may be 0"
        )


def _limit(sort: str, settings: Mapping[str, Any]) -> int:
    limit: int = settings[_NODES[sort][0]]
    return -(-limit // settings[PARTITIONS]) if sort == "users" else limit  # partitions share the users equally


def _kept(saved: SavedSlice, sort: str, ids: Sequence[str | None], limit: int) -> Longs | None:
    """[R] the rows that stay where there may be `limit` of them, those named last; None where all can stay in place."""
    if len(ids) <= limit:
        return None
    seen = saved.tables[f"{sort}.seen"].numpy()
    live = np.flatnonzero([name is not None for name in ids])
    newest_first = live[np.argsort(-seen[live], kind="stable")]
    return np.sort(newest_first[:limit])


def _row_of(keep: Longs | None, rows: int) -> Longs | None:
    """[rows] the new row of each old one, -1 where it is gone."""
    if keep is None:
        return None
    found = np.full(rows, -1, np.int64)
    found[keep] = np.arange(len(keep))
    return found


def _with_rows(saved: SavedSlice, sort: str, keep: Longs) -> SavedSlice:
    """Only some rows of a sort of nodes, without the rings, which are changed already."""
    tables = {name: saved.tables[name][torch.from_numpy(keep)] for name in _NODES[sort][1]}
    before: Sequence[str | None] = getattr(saved, sort)
    ids = [before[row] for row in keep.tolist()]
    gone = len(before) - before.count(None) - len(ids)
    numbers = {**saved.numbers, f"evicted_{sort}": saved.numbers[f"evicted_{sort}"] + gone}
    changes: dict[str, Any] = {sort: ids}
    return replace(
        saved,
        tables={**saved.tables, **tables},
        lists={**saved.lists, f"{sort}.free": []},
        numbers=numbers,
        **changes,
    )


def _with_session_users(saved: SavedSlice, limit: int) -> SavedSlice:
    """The users of as many sessions as there may be users."""
    table = saved.tables["session_users"]
    if len(table) <= limit:
        return saved
    kept = torch.from_numpy(kept_sessions(table.numpy(), limit))
    return replace(saved, tables={**saved.tables, "session_users": table[kept]})


def _with_contributions(saved: SavedSlice, users: Longs | None, items: Longs | None) -> SavedSlice:
    """What users have added to items, under the new rows of both: pairs of which one is gone leave."""
    if users is None and items is None:
        return saved
    table, sums = saved.tables["contributions"].numpy().copy(), saved.tables["contributions.sums"].numpy()
    there = table[:, PAIR] != 0
    table, sums = table[there], sums[there]
    user, item = (table[:, PAIR] >> 32) - 1, table[:, PAIR] & _ROW
    user, item = (user if users is None else users[user]), (item if items is None else items[item])
    there = (user >= 0) & (item >= 0)
    table[:, PAIR] = pair_keys(user, item)
    return _with_pairs(saved, table[there], sums[there])


def _with_room_for_pairs(saved: SavedSlice, limit: int, half_life_s: float) -> SavedSlice:
    """As many pairs as there may be: those that have added most by now under the first half-life."""
    table, sums = saved.tables["contributions"].numpy(), saved.tables["contributions.sums"].numpy()
    if len(table) <= limit:
        return saved
    used = np.flatnonzero(table[:, PAIR] != 0)
    order = least_first(table[used], sums[used], int(half_lives_ms([half_life_s])[0]), saved.numbers["newest_ms"])
    kept = np.sort(used[order[max(0, len(used) - limit) :]])
    return _with_pairs(saved, table[kept], sums[kept])


def _with_pairs(saved: SavedSlice, table: Longs, sums: NDArray[np.float64]) -> SavedSlice:
    tables = {"contributions": torch.from_numpy(table), "contributions.sums": torch.from_numpy(sums)}
    return replace(saved, tables={**saved.tables, **tables})


def _with_last_items(saved: SavedSlice, row_of: Longs) -> SavedSlice:
    """The last item of each user under its new row."""
    sessions = saved.tables["sessions"].clone()
    key = sessions[:, ITEM].numpy()
    row = row_of[np.minimum(key & _ROW, len(row_of) - 1)]
    key[:] = np.where(row >= 0, (key & ~np.int64(_ROW)) | row, _NO_ITEM)
    return replace(saved, tables={**saved.tables, "sessions": sessions})


def _with_half_lives(saved: SavedSlice, was: Sequence[float], now: Sequence[float]) -> SavedSlice:
    """Counts under other half-lives: a new one goes on from those of the nearest, as they are at the newest event.

    What an item had at each moment of the past is not known any more, only what is left of it.
    """
    if list(was) == list(now):
        return saved
    counts, landmarks = saved.tables["popularity"].numpy(), saved.lists["landmark"]
    sums = saved.tables["contributions.sums"].numpy()
    columns: list[NDArray[np.float64]] = []
    added: list[NDArray[np.float64]] = []
    moved: list[int] = []
    for half_life_s in now:
        nearest = min(range(len(was)), key=lambda at: abs(math.log(was[at] / half_life_s)))
        column, landmark = counts[:, nearest], landmarks[nearest]
        if was[nearest] != half_life_s:
            before, after = (saved.numbers["newest_ms"] / max(1, int(s * 1000)) for s in (was[nearest], half_life_s))
            fresh = landmark_of(int(after))
            column = column * 2.0 ** ((landmark - before) + (after - fresh))
            landmark = fresh
        columns.append(column)
        added.append(sums[:, nearest])
        moved.append(landmark)
    saved = _with_pairs(saved, saved.tables["contributions"].numpy(), np.ascontiguousarray(np.stack(added, axis=1)))
    table = torch.from_numpy(np.ascontiguousarray(np.stack(columns, axis=1)))
    return replace(saved, tables={**saved.tables, "popularity": table}, lists={**saved.lists, "landmark": moved})
