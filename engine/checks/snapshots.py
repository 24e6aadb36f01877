"""Can what was saved be used by the next start, and is there room for what it will save?"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kafka import TopicPartition

from engine.checks.brokers import hurried
from engine.checks.finding import Finding, error, ok, warning
from engine.checks.folders import look_at_folder, look_at_room
from engine.config import Config, KafkaConfig
from engine.events.broker_client import open_client
from engine.events.consumer_settings import consumer_settings
from engine.events.log_consumer import LogConsumer
from engine.events.source import LogIdentity, LogRange, Partition
from engine.snapshot.default_folder import default_folder, folder_of_log, usual_name
from engine.snapshot.files import DamagedError
from engine.snapshot.fit import catalog_misfit, slice_misfit
from engine.snapshot.folders import SnapshotFolder, snapshot_folders
from engine.snapshot.manifest import Manifest, OtherFormatError, read_manifest
from engine.snapshot.settings import Fingerprint, fingerprint

# What is asked for where no snapshot says how large the state is: about a million users.
_FIRST_BYTES = 2**30


def look_at_snapshot_folder(config: Config) -> Iterator[Finding]:
    """The folder of the snapshots and its disk."""
    if not config.snapshot.enabled:
        yield warning("snapshot.enabled is false: every start reads the whole log")
        return
    folder = _folder(config)
    setting = "snapshot.dir" if config.snapshot.dir is not None else "the default of snapshot.dir"
    yield from look_at_folder(setting, folder)
    own = [one for one in _whole(folder) if one.engine == _own_name(config)]
    if not own:
        yield from look_at_room(setting, folder, _FIRST_BYTES, "snapshots of about a million users")
        return
    size_bytes = sum(file.stat().st_size for file in own[-1].path.iterdir())
    # While one is written, all that are kept are there.
    missing = max(1, config.snapshot.keep + 1 - len(own))
    yield from look_at_room(setting, folder, missing * size_bytes, f"snapshots as large as the last one: {missing}")


def look_at_snapshots(config: Config) -> Iterator[Finding]:
    """Holds the snapshots against the log, as a start does. Their data is not read, only what they say of it."""
    if not config.snapshot.enabled:
        return
    log = _look_at_log(config.kafka)
    if log is None:
        yield ok("the topics do not exist yet, so that no snapshot can be of them")
        return
    folder = _folder(config)
    if config.snapshot.dir is None:
        folder = folder_of_log(folder, log.identity, config.kafka.events_topic, time.time_ns() // 1_000_000)
    manifests: dict[Path, Manifest] = {}
    for snapshot in _whole(folder):
        try:
            manifests[snapshot.path] = read_manifest(snapshot.path)
        except (DamagedError, OtherFormatError, OSError) as problem:
            yield warning(f"a snapshot can't be used, because of {problem}: put it back from a backup, or delete it")
    settings = fingerprint(config.state, config.events, config.kafka, log.partitions)
    refused = error if config.snapshot.on_mismatch == "refuse" else warning
    if not manifests:
        yield from _without_snapshots(folder, log)
        return
    problems = dict.fromkeys(_misfits(manifests, settings, log, config.kafka))
    yield from (refused(problem) for problem in problems)
    if not problems:
        yield ok(f"the snapshots in {folder} fit the log and the settings: {len(manifests)}")


@dataclass(frozen=True)
class _Log:
    """What the brokers say of the log."""

    partitions: int
    identity: LogIdentity
    ranges: Mapping[Partition, LogRange]


def _look_at_log(config: KafkaConfig) -> _Log | None:
    """None where one of the topics does not exist. No group is joined."""
    settings = consumer_settings(hurried(config).model_copy(update={"share": False}))
    topics = (config.events_topic, config.items_topic)
    with closing(open_client(LogConsumer, settings)) as consumer:
        if not set(topics) <= consumer.topics():
            return None
        partitions = [
            TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic) or ()
        ]
        begin, end = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        identity = consumer.identity(topics)
        if not identity.topic_ids:  # The first event tells logs apart where the broker gives topics no ids.
            identity = replace(identity, began_ms=consumer.first_record_ms(config.events_topic))
    ranges = {(at.topic, at.partition): LogRange(begin[at], end[at]) for at in partitions}
    return _Log(sum(at.topic == config.events_topic for at in partitions), identity, ranges)


def _misfits(
    manifests: Mapping[Path, Manifest], settings: Fingerprint, log: _Log, config: KafkaConfig
) -> Iterator[str]:
    """A line for each part of the state that some snapshot has and that a start could take from none."""
    items = {where: held for where, held in log.ranges.items() if where[0] == config.items_topic}
    parts = sorted({number for manifest in manifests.values() for number in manifest.slices})
    for number in parts:
        held = log.ranges.get((config.events_topic, number), LogRange(0, 0))
        found = {
            path: _judged(slice_misfit, manifest, number, settings, log.identity, held)
            for path, manifest in manifests.items()
            if number in manifest.slices
        }
        yield from _refusal(f"partition {number} of the events", found)
    found = {
        path: _judged(catalog_misfit, manifest, settings, log.identity, items) for path, manifest in manifests.items()
    }
    yield from _refusal("the catalog", found)


def _judged(misfit: Callable[..., str | None], *about: Any) -> str | None:
    try:
        return misfit(*about)
    except (ValueError, LookupError, TypeError) as problem:  # A manifest may be anybody's.
        return f"its settings make no sense: {problem!r}"


def _refusal(part: str, found: Mapping[Path, str | None]) -> Iterator[str]:
    if all(found.values()):
        path = max(found)
        yield (
            f"no snapshot can give back {part}, and a start may be refused for it; of {path}: {found[path]}. Put back"
            " what was changed (settings, kafka.bootstrap, topics), or see snapshot.on_mismatch"
        )


def _without_snapshots(folder: Path, log: _Log) -> Iterator[Finding]:
    begun = [f"{topic}[{number}]" for (topic, number), held in sorted(log.ranges.items()) if held.begin > 0]
    if begun:
        yield warning(
            f"there is no snapshot in {folder}, and the log has deleted the begin of {', '.join(begun[:3])}: a start"
            " knows only what the log still has; check snapshot.dir, where there should be one"
        )
    else:
        yield ok(f"there is no snapshot in {folder}, and the log is whole: a start reads all of it")


def _folder(config: Config) -> Path:
    return config.snapshot.dir or default_folder(os.environ)


def _own_name(config: Config) -> str:
    return config.snapshot.engine or usual_name(socket.gethostname(), config.serving.port)


def _whole(folder: Path) -> list[SnapshotFolder]:
    """The snapshots in a folder and, in the default folder, those of each log; the oldest of an engine first."""
    folders = [folder, *(inner for inner in sorted(folder.glob("*")) if inner.is_dir())] if folder.is_dir() else []
    return [one for inner in folders for one in snapshot_folders(inner) if not one.unfinished]
