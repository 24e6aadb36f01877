"""The files in the folder of one snapshot, written and read.

    manifest.json         what the snapshot is, and of every part its position, files, sizes, digests and row counts
    manifest.json.sha256  its digest, as `sha256sum` writes and checks it
    slice-P.tables        tables of partition P, back to back: numbers, in the order and of the types in the manifest
    slice-P.columns       ids and lists of partition P: lines of JSON, each ["column", [some of its values]]
    catalog.items         the catalog: lines of JSON, each a list of some records' fields
    catalog.content       only where `state.content_encoder` is not hashed: a vector of float32 per record of it

What a slice holds is data here. A version of Ousel that gives it other tables, or another meaning, raises `FORMAT` and
adds the step that makes an older slice its own: see `upgrades`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from pydantic import TypeAdapter

from engine.events.batch import CatalogItem
from engine.events.source import LogIdentity
from engine.snapshot.files import (
    DamagedError,
    buffer_pieces,
    check_size,
    checked_lines,
    read_buffers,
    sync_folder,
    write_file,
)
from engine.snapshot.manifest import DIGEST, MANIFEST, Manifest, StoredSlice, digest_line
from engine.snapshot.upgrades import FORMAT, upgraded
from engine.state.copying import SavedCatalog, SavedState
from engine.state.slice import SavedSlice

# Values per line. A line is made and read in one go, during which no other thread runs: a few ms at most.
_VALUES, _ITEMS = 4096, 64
_FIELDS = tuple(field.name for field in fields(CatalogItem))
_RECORD = TypeAdapter(CatalogItem)


def write_snapshot(
    folder: Path,
    saved: SavedState,
    engine: str,
    settings: Mapping[str, Any],
    log: LogIdentity | None = None,
    skipped: Iterable[str] = (),
) -> None:
    """Fills an empty folder, through to the disk. See `Manifest` for what it says of itself."""
    slices = {str(partition): _write_slice(folder, partition, saved.slices[partition]) for partition in saved.slices}
    catalog, identity = saved.catalog, log or LogIdentity()
    # Tuples: to tell an object by its fields makes a dict of each, and those call for a full garbage collection.
    lines = (_line([*map(attrgetter(*_FIELDS), part)]) for part in _parts(catalog.items, _ITEMS))
    entry = write_file(folder / "catalog.items", lines)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "engine": engine,
        "settings": settings,
        "log": {"cluster_id": identity.cluster_id, "topic_ids": dict(identity.topic_ids)},
        "skipped": sorted(skipped),
        "catalog": {
            "positions": sorted((*where, position) for where, position in catalog.positions.items()),
            "began": sorted((*where, began) for where, began in catalog.began.items()),
            "items_folded": catalog.items_folded,
            "rows": len(catalog.items),
            "used": catalog.used,
            "dropped": catalog.dropped,
            "fields": _FIELDS,
            "file": asdict(entry),
        },
        "slices": slices,
    }
    if catalog.content is not None and catalog.rows is not None:
        rows = (catalog.content[part].numpy() for part in catalog.rows.split(_VALUES))
        written = write_file(folder / "catalog.content", buffer_pieces(rows))
        manifest["catalog"] |= {"content_dim": catalog.content.shape[1], "content_file": asdict(written)}
    written = write_file(folder / MANIFEST, [orjson.dumps(manifest, option=orjson.OPT_INDENT_2)])
    write_file(folder / DIGEST, [digest_line(written.sha256)])
    sync_folder(folder)


def read_slice(folder: Path, manifest: Manifest, partition: int) -> SavedSlice:
    """One slice, as this version has it; takes about the memory that the slice itself has.

    Raises:
        DamagedError, OSError: it can't be used.
    """
    part = manifest.slices[partition]
    # Nothing is reserved for a file that is not there, nor for tables that are not in it.
    check_size(folder, part.tables_file.entry)
    if sum(table.bytes for table in part.tables) != part.tables_file.bytes:
        raise DamagedError(f"{folder / part.tables_file.name}: has other tables than the manifest says")
    arrays = {table.name: np.empty(table.shape, table.dtype) for table in part.tables}
    read_buffers(folder, part.tables_file.entry, list(arrays.values()))
    columns = _read_columns(folder, part)
    lists = {name.removeprefix(_LIST): columns[name] for name in columns if name.startswith(_LIST)}
    tables = {name: torch.from_numpy(array) for name, array in arrays.items()}
    ids = columns["users"], columns["items"], columns["recent_ids"]
    saved = SavedSlice(tables, *ids, part.numbers, lists, columns["targets"], part.began)
    return upgraded(saved, manifest.version)


def read_catalog(folder: Path, manifest: Manifest) -> SavedCatalog:
    """The catalog.

    Raises:
        DamagedError, OSError: it can't be used.
    """
    part = manifest.catalog
    items = []
    for line in checked_lines(folder, part.file.entry):
        for values in orjson.loads(line):
            items.append(_RECORD.validate_python(dict(zip(part.fields, values, strict=True))))
    content = rows = None
    if part.content_file is not None and part.content_dim is not None:
        check_size(folder, part.content_file.entry)
        if len(items) * part.content_dim * 4 != part.content_file.bytes:
            raise DamagedError(f"{folder / part.content_file.name}: has not {part.content_dim} numbers for each record")
        kept = np.empty((len(items), part.content_dim), np.float32)
        read_buffers(folder, part.content_file.entry, [kept])
        content, rows = torch.from_numpy(kept), torch.arange(len(items))
    positions, began = manifest.catalog_positions, manifest.catalog_began
    return SavedCatalog(
        items, positions, part.items_folded, content, rows, began, "attributes" in part.fields,
        used=min(part.used, len(items)), dropped=part.dropped,
    )  # fmt: skip


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


def _read_columns(folder: Path, part: StoredSlice) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in part.rows}
    for line in checked_lines(folder, part.columns_file.entry):
        name, values = orjson.loads(line)
        columns[name] += values
    wrong = [name for name, values in columns.items() if len(values) != part.rows[name]]
    if wrong:
        raise DamagedError(f"{folder / part.columns_file.name}: has other columns than the manifest says: {wrong[0]!r}")
    return columns


def _parts(values: Sequence[Any], length: int) -> Iterator[Sequence[Any]]:
    return (values[first : first + length] for first in range(0, len(values), length))


def _line(values: Sequence[Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
