"""One digest per slice that says all of its state and nothing of how rows happened to be numbered.

Two engines that have folded the same records of a partition have the same digest of it, whatever happened on the way:
batches, restarts, evictions, other partitions.

Shapes: U users, N items, K edges kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import EventsConfig, StateConfig
from engine.events.batch import CatalogItem
from engine.state.contribution_kernels import PAIR
from engine.state.contribution_kernels import SEEN as SEEN_PAIR
from engine.state.copying import SavedState
from engine.state.ring import Ring
from engine.state.session_users import NAME, SEEN
from engine.state.slice import SavedSlice, Slice

_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class StateDigest:
    """A state at one moment.

    Attributes:
        slices: digest by partition of the events topic.
        positions: next offset to fold by (topic, partition).
        events_folded: by partition.
    """

    slices: Mapping[int, str]
    catalog: str
    positions: Mapping[tuple[str, int], int]
    events_folded: Mapping[int, int]


def state_digest(saved: SavedState, config: StateConfig, events: EventsConfig) -> StateDigest:
    """Digests of a copy of the state."""
    return StateDigest(
        {partition: slice_digest(one, config, events) for partition, one in saved.slices.items()},
        catalog_digest(saved.catalog.items),
        saved.positions,
        {partition: one.numbers["events_folded"] for partition, one in saved.slices.items()},
    )


def slice_digest(saved: SavedSlice, config: StateConfig, events: EventsConfig) -> str:
    """SHA-256, in hex, of what a slice holds, with rows replaced by the places of their ids in order."""
    named_sessions = saved.tables["session_users"]
    slice_ = Slice(config, events, max(1, len(saved.users), len(named_sessions)))
    slice_.restore(saved)
    digest = hashlib.sha256()
    user_place, item_place, target_place = (_put_ids(digest, ids) for ids in (saved.users, saved.items, saved.targets))
    users, items, targets = _rows(user_place), _rows(item_place), _rows(target_place)
    graph = slice_.graph
    _put_ring(digest, graph.user_items, users, item_place)
    _put_ring(digest, graph.item_users, items, user_place)
    _put_ring(digest, graph.item_next, items, item_place)
    relations = slice_.relations
    _put_ring(digest, relations.user_users, users, target_place)
    _put_ring(digest, relations.item_entities, items, target_place)
    _put_ring(digest, relations.entity_items, targets, item_place)
    sessions = slice_.sessions.table.get(users)
    # The last item is named by its row, and counts only while that row still means it.
    began = sessions[:, 0] > 0  # A user who has nothing but relations has no last item either.
    sessions[began, slice_.sessions.item_column] = slice_.sessions.last_items(users[began], item_place)
    _put(digest, sessions)
    named_sessions = named_sessions[named_sessions[:, SEEN] > 0]
    _put(digest, named_sessions[named_sessions[:, NAME].argsort()])
    _put(digest, slice_.users.seen.get(users))
    _put(digest, slice_.items.seen.get(items))
    _put(digest, relations.targets.seen.get(targets))
    _put(digest, slice_.popularity.table.get(items))
    _put_contributions(digest, saved, user_place, item_place)
    _put_texts(digest, saved.recent_ids)
    digest.update(repr((slice_.popularity.landmarks.tolist(), sorted(saved.numbers.items()))).encode())
    return digest.hexdigest()


def catalog_digest(records: Iterable[CatalogItem]) -> str:
    """SHA-256, in hex, of all records of the catalog by item id."""
    digest = hashlib.sha256()
    _put_texts(digest, [repr(record) for record in sorted(records, key=lambda record: record.item_id)])
    return digest.hexdigest()


def _put_contributions(digest: hashlib._Hash, saved: SavedSlice, user_place: Tensor, item_place: Tensor) -> None:
    """Adds what users have added to items, in the order of the pairs' last events."""
    pairs = saved.tables["contributions"]
    rows = pairs[:, SEEN_PAIR].argsort()
    rows = rows[pairs[rows, PAIR] != 0]
    _put(digest, pairs[rows, SEEN_PAIR:])
    _put(digest, user_place[(pairs[rows, PAIR] >> 32) - 1])
    _put(digest, item_place[pairs[rows, PAIR] & 0xFFFF_FFFF])
    _put(digest, saved.tables["contributions.sums"][rows])


def _put_ids(digest: hashlib._Hash, ids: Sequence[str | None]) -> Tensor:
    """Adds all ids in order; returns [rows] int64 the place of each row's id, -1 in a free row."""
    rows = sorted((row for row, name in enumerate(ids) if name is not None), key=lambda row: ids[row] or "")
    _put_texts(digest, [ids[row] or "" for row in rows])
    place = torch.full((len(ids),), -1, dtype=torch.int64)
    place[torch.tensor(rows, dtype=torch.int64)] = torch.arange(len(rows))
    return place


def _rows(place: Tensor) -> Tensor:
    """Rows in the order of their places."""
    rows = (place >= 0).nonzero().squeeze(1)
    return rows[place[rows].argsort()]


def _put_ring(digest: hashlib._Hash, ring: Ring, rows: Tensor, place: Tensor) -> None:
    for part in rows.split(_ROWS_AT_ONCE):
        edges = ring.latest(part)
        neighbor = torch.where(edges.mask, place[edges.row.clamp_min(0)], -1) if len(place) else edges.row
        for column in (neighbor, *edges.columns()[1:]):
            _put(digest, column)
        _put(digest, ring.degree.get(part))


def _put(digest: hashlib._Hash, column: Tensor) -> None:
    values: NDArray[np.generic] = column.contiguous().cpu().numpy()
    digest.update(f"{values.dtype}{values.shape}".encode())
    digest.update(values.tobytes())


def _put_texts(digest: hashlib._Hash, texts: Sequence[str]) -> None:
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
