"""Events as a file that every command which reads events takes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from trainer.atomic import write_atomically
from trainer.data.log import Events, Ints


def write_events(path: Path, events: Events, positions: Ints, *, by_session: bool) -> None:
    """Writes the events at `positions`, in their order, as CSV.

    Args:
        by_session: whether sessions stand for users, so that no user is named.
    """
    columns = {"item_id": (events.items, events.item), "kind": (events.kinds, events.kind)}
    if by_session or events.names_sessions:
        columns["session_id"] = (events.sessions, events.session)
    if not by_session:
        columns["user_id"] = (events.users, events.user)
    named = {
        name: pa.DictionaryArray.from_arrays(number[positions], pa.array(ids)).cast(pa.string())
        for name, (ids, number) in columns.items()
    }
    time = events.time[positions]
    table = pa.table(
        named | {"timestamp": time if events.timed else time.astype(int), "value": events.value[positions]}
    )
    write_atomically(path, lambda file: pacsv.write_csv(table, file))
