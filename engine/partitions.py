"""Brings the state in line with the partitions that this process reads: restores those that came, drops others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.catalog_recheck import NO_DOUBTS, Doubts, may_miss_deletions
from engine.events.source import Assignment, LogRange, Partition
from engine.log_fields import at
from engine.snapshot.losses import Loss, SnapshotError, refusal
from engine.state.copying import SavedCatalog, SavedState
from engine.state.slice import SavedSlice
from engine.state.state import Folded, State

_log = logging.getLogger(__name__)


class Snapshots(Protocol):
    """Snapshots that were taken, by this engine or by others of its group."""

    def newest(self, partition: int, log: LogRange) -> SavedSlice | None:
        """The best slice of a partition that the log still continues; None where there is none."""

    def newest_catalog(self, log: Mapping[Partition, LogRange]) -> SavedCatalog | None:
        """The best catalog that the log still continues; None where there is none."""

    def lost(self, partition: int, log: LogRange) -> Loss | None:
        """The loss where a partition begins with the log, since `newest` has found nothing to use."""

    def lost_catalog(self, log: Mapping[Partition, LogRange]) -> Loss | None:
        """The loss where the catalog begins with the log."""

    def write(self, saved: SavedState) -> object:
        """Saves the state whole or not at all; raises where that fails."""


@dataclass(frozen=True)
class Taken:
    """The changes that an assignment brought, and where reading goes on.

    Attributes:
        unchecked: by (topic, partition), up to where the catalog has all, where it must be held against its topic.
        doubts: why it must be.
    """

    changes: Sequence[Folded]
    positions: Mapping[Partition, int]
    unchecked: Mapping[Partition, int] = field(default_factory=dict)
    doubts: Doubts = NO_DOUBTS


def take(
    assignment: Assignment,
    state: State,
    snapshots: Snapshots | None,
    *,
    may_lose: bool = True,
    doubts: Doubts = NO_DOUBTS,
) -> Taken:
    """Drops the slices of partitions that are read elsewhere now, and restores those that came.

    A slice that stays goes on from where it is. One that came is the best that a snapshot has, or begins with the log.

    Args:
        doubts: why the catalog was to be held against its topic, and was not yet.
        may_lose: whether a part may begin with the log though a snapshot that can't be used holds more than that.

    Raises:
        SnapshotError: one would have to, and may not; says what would be lost.
    """
    topic = state.events_topic
    wanted = {number: held for (name, number), held in assignment.partitions.items() if name == topic}
    changes = [state.drop(number) for number in list(state.slices) if number not in wanted]
    losses: list[Loss | None] = []
    for number, held in sorted(wanted.items()):
        if number not in state.slices:
            changes.append(_open(number, held, state, snapshots, losses))
    catalog = {partition: held for partition, held in assignment.partitions.items() if partition[0] != topic}
    restored = None if state.catalog_positions else _open_catalog(state, snapshots, catalog, losses)
    _judge([loss for loss in losses if loss is not None], may_lose)
    begin = {partition: held.begin for partition, held in assignment.partitions.items()}
    positions = begin | {partition: at for partition, at in state.positions.items() if partition in begin}
    known = {partition: at for partition, at in state.catalog_positions.items() if partition in catalog}
    if restored:
        doubts = Doubts(may_miss_deletions(assignment, known), not restored.has_attributes)
    if doubts:
        return Taken(changes, positions | {partition: held.begin for partition, held in catalog.items()}, known, doubts)
    return Taken(changes, positions)


def _judge(losses: Sequence[Loss], may_lose: bool) -> None:
    if losses and not may_lose:
        raise SnapshotError(refusal(losses))
    for loss in losses:
        _log.error("lost, for the log no longer has all of it, and kept on disk: %s", loss)


def _open(number: int, held: LogRange, state: State, snapshots: Snapshots | None, losses: list[Loss | None]) -> Folded:
    saved = snapshots.newest(number, held) if snapshots is not None else None
    slice_ = state.new_slice()
    if saved is not None:
        slice_.restore(saved)
        _log.info(
            "partition %d of %s: restored at offset %d, %d records to replay",
            number, state.events_topic, slice_.position, held.end - slice_.position,
            extra=at(state.events_topic, number, slice_.position),
        )  # fmt: skip
    else:
        slice_.position = slice_.began = held.begin
        losses.append(snapshots.lost(number, held) if snapshots is not None else None)
        _log.info("partition %d of %s: no snapshot, %d records to replay", number, state.events_topic,
                  held.end - held.begin, extra=at(state.events_topic, number, held.begin))  # fmt: skip
    return state.open(number, slice_)


def _open_catalog(
    state: State, snapshots: Snapshots | None, log: Mapping[Partition, LogRange], losses: list[Loss | None]
) -> SavedCatalog | None:
    """Returns the catalog that a snapshot had."""
    saved = snapshots.newest_catalog(log) if snapshots is not None else None
    if saved is not None:
        content = None if saved.content is None else saved.content[saved.rows]
        state.restore_catalog(
            saved.items, saved.positions, saved.items_folded, content, used=saved.used, dropped=saved.dropped
        )
        state.catalog_began = saved.began
        _log.info("catalog: %d records restored", len(saved.items))
        return saved
    state.catalog_began = {partition: held.begin for partition, held in log.items()}
    losses.append(snapshots.lost_catalog(log) if snapshots is not None else None)
    return None
