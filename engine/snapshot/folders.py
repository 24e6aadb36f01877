"""Which folders hold the snapshots of which engine, and which of them can go.

`ENGINE-000000000007` is the seventh of an engine, whole; with `.writing` or `.deleting` behind it is not.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.events.source import LogIdentity
from engine.snapshot.manifest import Manifest

_NAME = re.compile(r"(?P<engine>[^/]+)-(?P<sequence>[0-9]{12})(?P<unfinished>\.writing|\.deleting)?")
# One a second would need 30,000 years to come this far: no engine has written what lies beyond.
LAST_SEQUENCE = 10**12 - 10**6


@dataclass(frozen=True)
class SnapshotFolder:
    """A folder that holds a snapshot or, unfinished, some of one."""

    path: Path
    engine: str
    sequence: int
    unfinished: bool = False

    @classmethod
    def named(cls, parent: Path, engine: str, sequence: int) -> SnapshotFolder:
        return cls(parent / f"{engine}-{sequence:012}", engine, sequence)

    @property
    def writing(self) -> Path:
        """Its name until it is whole."""
        return self.path.with_name(f"{self.path.name}.writing")

    def delete(self) -> None:
        """Deletes it; from the first moment on nobody takes what is left for whole."""
        deleting = self.path.with_name(f"{self.path.name}.deleting")
        self.path.replace(deleting)
        shutil.rmtree(deleting)


def named_like_snapshots(parent: Path) -> Iterator[SnapshotFolder]:
    """All that has a snapshot's name in `parent`, folder or not; that of an engine comes by rising sequence."""
    for path in sorted(parent.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            yield SnapshotFolder(path, match["engine"], int(match["sequence"]), bool(match["unfinished"]))


def strange(folder: SnapshotFolder) -> str | None:
    """Why no engine can have made what has a snapshot's name; None where one can."""
    if folder.path.is_symlink():
        return "it is a symbolic link"
    if folder.sequence > LAST_SEQUENCE:
        return f"no snapshot has a number above {LAST_SEQUENCE}"
    return None if folder.path.is_dir() else "it is no folder"


def snapshot_folders(parent: Path) -> Iterator[SnapshotFolder]:
    """All folders in `parent` with a snapshot's name, those of an engine by rising sequence; others are let be."""
    return (folder for folder in named_like_snapshots(parent) if strange(folder) is None)


def next_sequence(parent: Path, engine: str) -> int:
    """Above all that an engine has in `parent`, whatever it is: each name is given once."""
    taken = [folder.sequence for folder in named_like_snapshots(parent) if folder.engine == engine]
    return 1 + max((sequence for sequence in taken if sequence <= LAST_SEQUENCE), default=0)


def same_log(one: LogIdentity, other: LogIdentity, topic: str) -> bool:
    """Whether a topic may be the same in two logs: a name that one of them does not tell contradicts nothing."""
    ids = one.topic_ids.get(topic), other.topic_ids.get(topic)
    clusters = one.cluster_id, other.cluster_id
    return all(None in pair or pair[0] == pair[1] for pair in (ids, clusters))


def needed(
    folder: SnapshotFolder, manifests: Mapping[SnapshotFolder, Manifest], events_topic: str, items_topic: str
) -> bool:
    """Whether a snapshot holds something that no newer one of its engine has, and no other engine's further on.

    An engine that has lost a partition goes on without it. Its last slice must stay until the new owner has saved one:
    the log may not hold all of the past any more. What began later in the log, or with another log, holds less of the
    past, and replaces nothing.

    Args:
        manifests: of all snapshots that can be used; one that isn't among them is needed: nobody can say what it holds.
    """
    if folder not in manifests:
        return True
    held = manifests[folder]

    def later(other: SnapshotFolder, further: bool) -> bool:
        # Not as far: two engines could each delete theirs for the sake of the other's.
        return other.sequence > folder.sequence if other.engine == folder.engine else further

    def replaces(other: SnapshotFolder, partition: int) -> bool:
        has = manifests[other]
        return (
            partition in has.slices
            and has.slices[partition].began <= held.slices[partition].began
            and same_log(has.log, held.log, events_topic)
            and later(other, has.positions[partition] > held.positions[partition])
        )

    def replaces_catalog(other: SnapshotFolder) -> bool:
        has = manifests[other]
        return (
            all(has.catalog_began.get(where, 0) <= began for where, began in _began(held).items())
            and same_log(has.log, held.log, items_topic)
            and later(other, sum(has.catalog_positions.values()) > sum(held.catalog_positions.values()))
        )

    slices = all(any(replaces(other, partition) for other in manifests) for partition in held.slices)
    return not (slices and any(map(replaces_catalog, manifests)))


def _began(held: Manifest) -> dict[tuple[str, int], int]:
    return {where: held.catalog_began.get(where, 0) for where in held.catalog_positions}
