"""The description of a snapshot in its `manifest.json`, and whether that can be believed.

The digest beside it tells damage from what was written. It does not tell who wrote it: so every name, number and size
is checked before it is used, as those of a request are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from engine.events.source import LogIdentity
from engine.snapshot.files import DamagedError, FileEntry, read_small
from engine.snapshot.upgrades import FORMAT, OLDEST_FORMAT

MANIFEST, DIGEST = "manifest.json", "manifest.json.sha256"
_LARGEST_BYTES = 64 * 2**20  # that of 1,024 partitions has 7 MB
_MAX = 2**63 - 1

Count = Annotated[int, Field(ge=0, le=_MAX)]
Whole = Annotated[int, Field(ge=-(2**63), le=_MAX)]
# Topic, partition and offset: a list in JSON, which only what isn't strict takes for a tuple.
Place = Annotated[
    tuple[Annotated[str, Strict()], Annotated[Count, Strict()], Annotated[Count, Strict()]], Strict(False)
]
Dtype = Literal["|b1", "|i1", "|u1", "<i2", "<i4", "<i8", "<f4", "<f8"]


class OtherFormatError(Exception):
    """A snapshot of a format that this version of the engine doesn't read."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class StoredFile(_Entry):
    """A file beside the manifest: a name that leads nowhere else."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,63}\.[a-z]{1,31}$")
    bytes: Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def entry(self) -> FileEntry:
        return FileEntry(self.name, self.bytes, self.sha256)


class StoredTable(_Entry):
    """Where numbers lie in a file of tables."""

    name: str
    dtype: Dtype
    shape: list[Count] = Field(max_length=4)

    @property
    def bytes(self) -> int:
        size = int(self.dtype[-1])
        for length in self.shape:
            size *= length
        return size


class StoredSlice(_Entry):
    """All that is needed to read the slice of a partition."""

    began: Count = 0
    numbers: dict[str, Whole]
    rows: dict[str, Count]
    tables: list[StoredTable]
    tables_file: StoredFile
    columns_file: StoredFile

    @model_validator(mode="after")
    def _ends_after_it_began(self) -> Self:
        if not self.began <= self.numbers["position"]:
            raise ValueError(f"position must be >= began {self.began}, got {self.numbers['position']}")
        return self

    @property
    def position(self) -> int:
        """Next offset to fold."""
        return self.numbers["position"]

    @property
    def users(self) -> int:
        """How many it holds."""
        return max(0, self.rows.get("users", 0) - self.rows.get("lists.users.free", 0))

    @property
    def events(self) -> int:
        """How many events were folded into it."""
        return self.numbers.get("events_folded", 0)


class StoredCatalog(_Entry):
    """All that is needed to read the catalog."""

    positions: list[Place]
    began: list[Place] = []
    items_folded: Count
    rows: Count
    used: Count = 0
    dropped: bool = True
    fields: list[str]
    file: StoredFile
    content_dim: Count | None = None
    content_file: StoredFile | None = None


class _Log(_Entry):
    cluster_id: str | None = None
    topic_ids: dict[str, str] = {}


class _Document(_Entry):
    created: str = ""
    settings: dict[str, Any]
    log: _Log = _Log()
    skipped: list[str] = []
    catalog: StoredCatalog
    slices: dict[str, StoredSlice]


@dataclass(frozen=True)
class Manifest:
    """A snapshot's description of itself.

    Attributes:
        version: of the format that it was written in.
        created: when, in ISO 8601; "" where it does not say.
        log: the log that it is of, as far as the broker and the version that wrote it have said.
        skipped: names of the snapshots that its engine could not use before it, and must not delete after it.
        positions: next offset to fold by partition of the events topic.
        slices: by partition, what is needed to read one.
        catalog_positions: next offset to fold by (topic, partition).
        catalog_began: by (topic, partition), the first offset that was folded into the catalog.
        catalog: what is needed to read it.
    """

    version: int
    created: str
    settings: Mapping[str, Any]
    log: LogIdentity
    skipped: frozenset[str]
    positions: Mapping[int, int]
    slices: Mapping[int, StoredSlice]
    catalog_positions: Mapping[tuple[str, int], int]
    catalog_began: Mapping[tuple[str, int], int]
    catalog: StoredCatalog


def read_manifest(folder: Path) -> Manifest:
    """The description that the snapshot in `folder` gives of itself; its data files have not been looked at.

    Raises:
        DamagedError, OtherFormatError, OSError: it can't be used.
    """
    text = read_small(folder / MANIFEST, _LARGEST_BYTES)
    if read_small(folder / DIGEST, 4096) != digest_line(hashlib.sha256(text).hexdigest()):
        raise DamagedError(f"{folder / MANIFEST}: isn't what {DIGEST} was made of")
    try:
        said = orjson.loads(text)
        version = said["format"]
        if version not in range(OLDEST_FORMAT, FORMAT + 1):
            raise OtherFormatError(
                f"{folder}: has format version {str(version)[:20]}, this engine reads {OLDEST_FORMAT} to {FORMAT}"
            )
        document = _Document.model_validate(said)
        slices = {_partition(name): part for name, part in document.slices.items()}
        return Manifest(
            version,
            document.created,
            document.settings,
            LogIdentity(document.log.cluster_id, document.log.topic_ids),
            frozenset(document.skipped),
            {partition: part.position for partition, part in slices.items()},
            slices,
            {(topic, partition): position for topic, partition, position in document.catalog.positions},
            {(topic, partition): began for topic, partition, began in document.catalog.began},
            document.catalog,
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{folder / MANIFEST}: makes no sense: {_first_line(error)}") from error


def digest_line(sha256: str) -> bytes:
    """The line in the file beside the manifest, as `sha256sum` writes and checks it."""
    return f"{sha256}  {MANIFEST}\n".encode()


def _partition(name: str) -> int:
    partition = int(name)
    if str(partition) != name or not 0 <= partition < 2**31:
        raise ValueError(f"slices must be named by partitions, got {name[:20]!r}")
    return partition


def _first_line(error: Exception) -> str:
    """One line of it, with no more than a few words of what was found."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {str(first['input'])[:100]!r}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
