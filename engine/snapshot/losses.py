"""The losses of a start: content of a snapshot that can't be used and that the log can't tell again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


class SnapshotError(RuntimeError):
    """A snapshot can't be written or used; the message names the setting and the reason."""


@dataclass(frozen=True)
class Loss:
    """A part of the state that a start would lose.

    Attributes:
        part: what it is, for people: "partition 0 of the events".
        folder: the snapshot that has it.
        reason: why it can't be used.
        created: when the snapshot was written, in ISO 8601; "" where that can't be read.
        users, events, items: how many it holds; None where that can't be read.
    """

    part: str
    folder: Path
    reason: str
    created: str = ""
    users: int | None = 0
    events: int | None = 0
    items: int | None = 0

    def __str__(self) -> str:
        return f"{self.part} of snapshot {self.folder} ({held([self])}): {self.reason}"


def held(losses: Sequence[Loss]) -> str:
    """How much the parts hold together, and how old it is."""
    found = []
    for name in ("users", "events", "items"):
        counts = [getattr(loss, name) for loss in losses]
        if None in counts:
            return f"nobody can tell how many {name}"
        if any(counts):
            found.append(f"{sum(counts)} {name}" if name != "items" else f"{sum(counts)} catalog records")
    ages = [age for loss in losses if (age := _age_s(loss.created)) is not None]
    return ", ".join(found or ["nothing"]) + (f", written {_shown(min(ages))} ago" if ages else "")


def refusal(losses: Sequence[Loss]) -> str:
    """One line that says what would be lost, why, and what can be done."""
    folders = sorted({str(loss.folder) for loss in losses})
    return (
        f"the start is refused, for it would lose what is in {', '.join(folders[:3])}"
        f"{' and others' if len(folders) > 3 else ''}: {held(losses)}. {losses[0].part}: {losses[0].reason}."
        " Put back what was changed, or set snapshot.on_mismatch to replay: the engine then begins with what the log"
        " still holds, and keeps these snapshots"
    )


def _age_s(created: str) -> float | None:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _shown(seconds: float) -> str:
    for unit, length_s in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} seconds"
