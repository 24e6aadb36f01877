"""What is in the folder of one snapshot.

    manifest.json         what the snapshot is, and of every part its position, files, sizes, digests and row counts
    manifest.json.sha256  its digest, as `sha256sum` writes and checks it
    slice-P.tables        tables of partition P, back to back: numbers, in the order and of the types in the manifest
    slice-P.columns       ids and lists of partition P: lines of JSON, each ["column", [some of its values]]
    catalog.items         the catalog, longest not updated first: lines of JSON, each a list of some records' fields
    catalog.content       only where `state.content_encoder` is not hashed: a vector of float32 per record of it

What a slice holds is data here. A version of Ousel that gives it other tables, or another meaning, raises `FORMAT` and
adds the step that makes an older slice its own: see `upgrades`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from engine.events.batch import CatalogItem
from engine.snapshot.files import (
    DamagedError,
    FileEntry,
    buffer_pieces,
    checked_lines,
    read_buffers,
    sync_folder,
    write_file,
)
from engine.snapshot.upgrades import FORMAT, OLDEST_FORMAT, upgraded
from engine.state.copying import SavedCatalog, SavedState
from engine.state.slice import SavedSlice

_MANIFEST, _DIGEST = "manifest.json", "manifest.json.sha256"
# Values per line. A line is made and read in one go, during which no other thread runs: a few ms at most.
_VALUES, _ITEMS = 4096, 64
_FIELDS = tuple(field.name for field in fields(CatalogItem))


@dataclass(frozen=True)
class Manifest:
    """What a snapshot says of itself.

    Attributes:
        version: of the format that it was written in.
        positions: next offset to fold by partition of the events topic.
        slices: by partition, what is needed to read one.
        catalog_positions: next offset to fold by (topic, partition).
        catalog: what is needed to read it.
    """

    version: int
    settings: Mapping[str, Any]
    positions: Mapping[int, int]
    slices: Mapping[int, Mapping[str, Any]]
    catalog_positions: Mapping[tuple[str, int], int]
    catalog: Mapping[str, Any]


class OtherFormatError(Exception):
    """A snapshot of a format that this version of the engine doesn't read."""


def write_snapshot(folder: Path, saved: SavedState, engine: str, settings: Mapping[str, Any]) -> None:
    """Fills an empty folder, through to the disk."""
    slices = {str(partition): _write_slice(folder, partition, saved.slices[partition]) for partition in saved.slices}
    catalog = saved.catalog
    # Tuples: to tell an object by its fields makes a dict of each, and those call for a full garbage collection.
    lines = (_line([*map(attrgetter(*_FIELDS), part)]) for part in _parts(catalog.items, _ITEMS))
    entry = write_file(folder / "catalog.items", lines)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "engine": engine,
        "settings": settings,
        "catalog": {
            "positions": sorted((*where, position) for where, position in catalog.positions.items()),
            "items_folded": catalog.items_folded,
            "rows": len(catalog.items),
            "fields": _FIELDS,
            "file": asdict(entry),
        },
        "slices": slices,
    }
    if catalog.content is not None and catalog.rows is not None:
        rows = (catalog.content[part].numpy() for part in catalog.rows.split(_VALUES))
        written = write_file(folder / "catalog.content", buffer_pieces(rows))
        manifest["catalog"] |= {"content_dim": catalog.content.shape[1], "content_file": asdict(written)}
    written = write_file(folder / _MANIFEST, [orjson.dumps(manifest, option=orjson.OPT_INDENT_2)])
    write_file(folder / _DIGEST, [_digest_line(written.sha256)])
    sync_folder(folder)


def read_manifest(folder: Path) -> Manifest:
    """What the snapshot in `folder` says of itself; its data files have not been looked at.

    Raises:
        DamagedError, OtherFormatError, OSError: it can't be used.
    """
    for name in (_MANIFEST, _DIGEST):
        if not (folder / name).is_file():
            raise DamagedError(f"{folder / name}: is missing")
    text = (folder / _MANIFEST).read_bytes()
    if (folder / _DIGEST).read_bytes() != _digest_line(hashlib.sha256(text).hexdigest()):
        raise DamagedError(f"{folder / _MANIFEST}: isn't what {_DIGEST} was made of")
    try:
        said = orjson.loads(text)
        version = said["format"]
        if version not in range(OLDEST_FORMAT, FORMAT + 1):
            raise OtherFormatError(
                f"{folder}: has format version {version}, this engine reads {OLDEST_FORMAT} to {FORMAT}"
            )
        slices = {int(partition): part for partition, part in said["slices"].items()}
        positions = {partition: int(part["numbers"]["position"]) for partition, part in slices.items()}
        catalog = said["catalog"]
        catalog_positions = {(topic, partition): int(position) for topic, partition, position in catalog["positions"]}
        return Manifest(version, said["settings"], positions, slices, catalog_positions, catalog)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{folder / _MANIFEST}: makes no sense: {error!r}") from error


def read_slice(folder: Path, manifest: Manifest, partition: int) -> SavedSlice:
    """One slice, as this version has it; takes about the memory that the slice itself has.

    Raises:
        DamagedError, OSError: it can't be used.
    """
    part = manifest.slices[partition]
    arrays = {table["name"]: np.empty(table["shape"], table["dtype"]) for table in part["tables"]}
    read_buffers(folder, FileEntry(**part["tables_file"]), list(arrays.values()))
    columns: dict[str, list[Any]] = {name: [] for name in part["rows"]}
    for line in checked_lines(folder, FileEntry(**part["columns_file"])):
        name, values = orjson.loads(line)
        columns[name] += values
    lists = {name.removeprefix(_LIST): columns[name] for name in columns if name.startswith(_LIST)}
    tables = {name: torch.from_numpy(array) for name, array in arrays.items()}
    ids = columns["users"], columns["items"], columns["recent_ids"]
    saved = SavedSlice(tables, *ids, part["numbers"], lists, columns["targets"], part.get("began", 0))
    return upgraded(saved, manifest.version)


def read_catalog(folder: Path, manifest: Manifest) -> SavedCatalog:
    """The catalog.

    Raises:
        DamagedError, OSError: it can't be used.
    """
    part = manifest.catalog
    items = []
    for line in checked_lines(folder, FileEntry(**part["file"])):
        for values in orjson.loads(line):
            record = dict(zip(part["fields"], values, strict=True))
            record |= {name: tuple(record[name]) for name in ("categories", "features")}
            record["attributes"] = tuple(map(tuple, record.get("attributes", ())))  # Older snapshots have none.
            items.append(CatalogItem(**record))
    content = rows = None
    if "content_file" in part:
        kept = np.empty((len(items), part["content_dim"]), np.float32)
        read_buffers(folder, FileEntry(**part["content_file"]), [kept])
        content, rows = torch.from_numpy(kept), torch.arange(len(items))
    return SavedCatalog(items, manifest.catalog_positions, part["items_folded"], content, rows)


_LIST = "lists."  # a column's name may come from the slice: this keeps it from being taken for ids


def _write_slice(folder: Path, partition: int, saved: SavedSlice) -> dict[str, Any]:
    """Writes the files of a slice; returns what the manifest says of it."""
    arrays = {name: table.contiguous().numpy() for name, table in saved.tables.items()}
    columns: dict[str, Sequence[Any]] = {"users": saved.users, "items": saved.items, "recent_ids": saved.recent_ids}
    columns |= {"targets": saved.targets}
    columns |= {_LIST + name: values for name, values in saved.lists.items()}
    lines = (_line([name, part]) for name, values in columns.items() for part in _parts(values, _VALUES))
    tables = write_file(folder / f"slice-{partition}.tables", buffer_pieces(arrays.values()))
    return {
        "began": saved.began,
        "numbers": dict(saved.numbers),
        "rows": {name: len(values) for name, values in columns.items()},
        "tables": [{"name": name, "dtype": array.dtype.str, "shape": array.shape} for name, array in arrays.items()],
        "tables_file": asdict(tables),
        "columns_file": asdict(write_file(folder / f"slice-{partition}.columns", lines)),
    }


def _parts(values: Sequence[Any], length: int) -> Iterator[Sequence[Any]]:
    return (values[first : first + length] for first in range(0, len(values), length))


def _line(values: Sequence[Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)


def _digest_line(sha256: str) -> bytes:
    return f"{sha256}  {_MANIFEST}\n".encode()
