"""Which folders hold the snapshots of which engine, and which of them can go.

`ENGINE-000000000007` is the seventh of an engine, whole; with `.writing` or `.deleting` behind it is not.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.snapshot.format import Manifest

_NAME = re.compile(r"(?P<engine>.+)-(?P<sequence>\d{12})(?P<unfinished>\.writing|\.deleting)?")


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


def snapshot_folders(parent: Path) -> Iterator[SnapshotFolder]:
    """All folders in `parent` with a snapshot's name, those of an engine by rising sequence; others are let be."""
    for path in sorted(parent.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and path.is_dir():
            yield SnapshotFolder(path, match["engine"], int(match["sequence"]), bool(match["unfinished"]))


def needed(folder: SnapshotFolder, manifests: Mapping[SnapshotFolder, Manifest]) -> bool:
    """Whether a snapshot holds a partition that no newer one of its engine has, and no other engine's further on.

    An engine that has lost a partition goes on without it. Its last slice must stay until the new owner has saved one:
    the log may not hold all of the past any more.

    Args:
        manifests: of all snapshots that can be used; one that isn't among them is not needed.
    """
    if folder not in manifests:
        return False

    def replaces(other: SnapshotFolder, partition: int, position: int) -> bool:
        if partition not in manifests[other].slices:
            return False
        if other.engine == folder.engine:
            return other.sequence > folder.sequence
        # Not as far: two engines could each delete theirs for the sake of the other's.
        return manifests[other].positions[partition] > position

    held = manifests[folder].positions.items()
    return not all(any(replaces(other, *one) for other in manifests) for one in held)
