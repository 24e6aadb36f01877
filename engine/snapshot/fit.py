"""Does a snapshot fit the log and the settings of a start, by what its manifest says?"""

from __future__ import annotations

from collections.abc import Mapping

from engine.events.source import LogIdentity, LogRange, Partition
from engine.snapshot.folders import same_log
from engine.snapshot.manifest import Manifest
from engine.snapshot.settings import Fingerprint, catalog_refused, slices_refused


def slice_misfit(
    manifest: Manifest, partition: int, settings: Fingerprint, identity: LogIdentity, log_range: LogRange
) -> str | None:
    """Why the slice of a partition can't be used, though it may be whole; None where it can.

    Args:
        manifest: of a snapshot that has the partition.
        settings: those of the start, see `settings.fingerprint`.
        log_range: what the log holds of the partition.
    """
    return (
        slices_refused(manifest.settings, settings)
        or _other_log(manifest, identity, settings["kafka.events_topic"])
        or _outside(manifest.positions[partition], log_range)
    )


def catalog_misfit(
    manifest: Manifest, settings: Fingerprint, identity: LogIdentity, log_ranges: Mapping[Partition, LogRange]
) -> str | None:
    """`slice_misfit` of the catalog."""
    return (
        catalog_refused(manifest.settings, settings)
        or _other_log(manifest, identity, settings["kafka.items_topic"])
        or _catalog_outside(manifest.catalog_positions, log_ranges)
    )


def _other_log(manifest: Manifest, now: LogIdentity, topic: str) -> str | None:
    was = manifest.log
    if same_log(was, now, topic):
        return None
    if was.cluster_id != now.cluster_id:
        return f"it was taken of cluster {was.cluster_id}, the log is of cluster {now.cluster_id}"
    return (
        f"it was taken of topic {topic!r} with id {was.topic_ids.get(topic)}, which was deleted: the topic has id"
        f" {now.topic_ids.get(topic)} now"
    )


def _outside(position: int, log_range: LogRange) -> str | None:
    """Why replay can't start at `position`; None where it can."""
    if position > log_range.end:
        return (
            f"its position {position} lies beyond the log's end {log_range.end}: the log was made anew or lost records"
        )
    if position < log_range.begin:
        return f"its position {position} lies below the log's begin {log_range.begin}: records in between are gone"
    return None


def _catalog_outside(positions: Mapping[Partition, int], log_ranges: Mapping[Partition, LogRange]) -> str | None:
    for (topic, partition), position in positions.items():
        log_range = log_ranges.get((topic, partition))
        wrong = "the log has no such partition" if log_range is None else _outside(position, log_range)
        if wrong:
            return f"{topic}[{partition}]: {wrong}"
    return None
