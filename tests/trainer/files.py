"""Planted logs as files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from engine.events.batch import Decoded


def written(folder: Path, batch: Decoded) -> tuple[Path, Path]:
    """A CSV of the events of a batch, in another order than that of time, and one of its catalog."""
    events, items = folder / "events.csv", folder / "items.csv"
    columns = batch.events
    times = [datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in columns.time_ms.tolist()]
    rows = zip(columns.user_id, columns.session_id, columns.item_id, times, strict=True)
    lines = [",".join((*row, "purchase")) for row in rows]
    events.write_text("\n".join(["user_id,session_id,item_id,timestamp,kind", *lines[1::2], *lines[::2]]) + "\n")
    lines = [f"{item.item_id},{item.title}" for item in batch.items]
    items.write_text("\n".join(["item_id,title", *lines]) + "\n")
    return events, items
