"""Whether what was read of a slice can be one: compiled code follows its numbers without looking where they lead.

A digest that fits shows that nothing was damaged, not that the right program wrote it.

Shapes: N nodes, B blocks of a ring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from engine.config import EventsConfig, StateConfig
from engine.snapshot.files import DamagedError
from engine.snapshot.rings import RINGS, Longs, blocks_of
from engine.state.contribution_kernels import PAIR
from engine.state.contribution_kernels import SEEN as SEEN_PAIR
from engine.state.kernels import BLOCK, ITEM
from engine.state.session_users import NAME, SEEN
from engine.state.slice import SavedSlice, Slice


def check_slice(saved: SavedSlice, settings: Mapping[str, Any]) -> None:
    """That a slice, taken under `settings`, is one that the fold could have made.

    Raises:
        DamagedError: it is not; says what can't be.
    """
    empty = _empty_slice(settings)
    ids = {"users": saved.users, "items": saved.items, "targets": saved.targets}
    for sort, names in ids.items():
        _check_ids(sort, names, saved.lists.get(f"{sort}.free"))
    _check_tables(saved, empty)
    for ring, (own, size, kinds, leads_to) in RINGS.items():
        _check_ring(saved, ring, len(ids[own]), settings[size], len(ids[leads_to]), len(settings[kinds]))
    row = saved.tables["sessions"][:, ITEM].numpy() & 0xFFFF_FFFF
    _must(bool((row < max(1, len(saved.items))).all()), "a last item has no row")
    sessions = saved.tables["session_users"].numpy()
    named = sessions[sessions[:, SEEN] > 0, NAME]
    _must(bool((sessions[:, SEEN] >= 0).all()), "a session was seen before the log began")
    _must(len(np.unique(named)) == len(named), "a session has its users twice")
    _must(bool(torch.isfinite(saved.tables["popularity"]).all()), "popularity is no number")
    pairs, sums = saved.tables["contributions"], saved.tables["contributions.sums"]
    user, item = (pairs[:, PAIR] >> 32) - 1, pairs[:, PAIR] & 0xFFFF_FFFF
    there = (user >= -1) & (user < len(saved.users)) & (item < max(1, len(saved.items))) & (pairs[:, SEEN_PAIR] >= 0)
    _must(len(pairs) == len(sums) and bool(there.all()), "the pairs of users and items don't fit")
    _must(bool((torch.isfinite(sums) & (sums >= 0)).all()), "what users have added to items is no number")
    landmarks = saved.lists.get("landmark")
    _must(_whole(landmarks, len(settings["state.half_lives_s"])), "the scales of popularity don't fit")
    _must(all(isinstance(name, str) for name in saved.recent_ids), "an event id is no text")
    numbers = saved.numbers
    _must(0 <= saved.began <= numbers["position"] and min(numbers.values()) >= 0, "its numbers make no sense")


def _empty_slice(settings: Mapping[str, Any]) -> Slice:
    """One of these settings, as small as can be: for the types and widths of its tables."""
    try:
        state = StateConfig(
            history=settings["state.history"],
            neighbors=settings["state.neighbors"],
            relations=settings["state.relations"],
            half_lives_s=settings["state.half_lives_s"],
            max_items=1,
            max_targets=1,
        )
        return Slice(state, EventsConfig(), 1)
    except ValueError as error:
        raise DamagedError(f"its settings make no sense: {' '.join(str(error).split())[:200]}") from error


def _check_ids(sort: str, names: Sequence[str | None], free: object) -> None:
    _must(all(name is None or isinstance(name, str) for name in names), f"an id of {sort} is no text")
    used = [name for name in names if name is not None]
    _must(len(set(used)) == len(used), f"an id of {sort} comes twice")
    rows = [row for row, name in enumerate(names) if name is None]
    _must(isinstance(free, list) and all(type(row) is int for row in free), f"the free rows of {sort} are no numbers")
    _must(sorted(free) == rows, f"the free rows of {sort} don't fit its ids")  # type: ignore[call-overload]


def _check_tables(saved: SavedSlice, empty: Slice) -> None:
    layout = {name: table.data for name, (table, _) in empty.tables().items()}
    _must(saved.tables.keys() == layout.keys(), "it has other tables than a slice has")
    for name, like in layout.items():
        table = saved.tables[name]
        _must(table.dtype == like.dtype and table.shape[1:] == like.shape[1:], f"table {name} has another shape")
    for sort in ("users", "items", "targets"):
        rows = len(getattr(saved, sort))
        own = ["generation", "seen"]
        names = [f"{sort}.{table}" for table in own] + {"users": ["sessions"], "items": ["popularity"]}.get(sort, [])
        _must(all(len(saved.tables[name]) == rows for name in names), f"the tables of {sort} don't fit its ids")


def _check_ring(saved: SavedSlice, name: str, nodes: int, size: int, others: int, kinds: int) -> None:
    degree, block, owner, neighbor, edge = (
        saved.tables[f"{name}.{table}"].numpy() for table in ("degree", "block", "owner", "neighbor", "edge")
    )
    found, free = saved.lists.get(f"{name}.blocks"), saved.lists.get(f"{name}.free")
    _must(_whole(found, 1) and _whole(free, None), f"the blocks of {name} are no numbers")
    blocks = found[0] if found else 0
    width = blocks_of(size)
    fits = len(degree) == nodes and len(block) == nodes * width
    _must(fits and len(owner) == blocks and len(neighbor) == len(edge) == blocks * BLOCK, f"{name} doesn't fit")
    places = block.nonzero()[0]
    used: Longs = np.concatenate([block[places].astype(np.int64), np.array(free, np.int64)])
    # Each block but the first, which stands for none, belongs to one place or is free.
    _must(len(used) == blocks - 1 and np.array_equal(np.sort(used), np.arange(1, blocks)), f"{name} has wrong blocks")
    _must(np.array_equal(owner[block[places]], places // width), f"{name} has blocks of the wrong nodes")
    _must(bool((degree >= 0).all()), f"{name} has fewer edges than none")
    _must(bool(((neighbor >= 0) & (neighbor <= others)).all()), f"{name} leads to a row that is not there")
    _must(bool((edge[neighbor > 0, 0] & 0xFF < kinds).all()), f"{name} has an edge of no kind")


def _whole(numbers: object, count: int | None) -> bool:
    """Whether these are so many whole numbers of 64 bits."""
    return (
        isinstance(numbers, list)
        and (count is None or len(numbers) == count)
        and all(type(number) is int and -(2**63) <= number < 2**63 for number in numbers)
    )


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DamagedError(otherwise)
