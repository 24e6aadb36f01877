"""Lists and figures as plain text, for the command line."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ousel.model_types import ModelOrigin
from ousel.status import Status
from ousel.types import Forgotten, Position, RecommendationList, StateDigest, Tracked, Update

_TITLE_WIDTH = 48


def ranking(name: str, ranked: RecommendationList, previous: RecommendationList | None = None) -> str:
    """A header and a numbered line per item; against `previous`: + new, ^ up, v down."""
    lines = [_header(name, ranked)]
    before = {item.item_id: rank for rank, item in enumerate(previous.items)} if previous else None
    id_width = max((len(printable(item.item_id)) for item in ranked.items), default=0)
    title_width = max((len(_title(item.title)) for item in ranked.items), default=0)
    for rank, item in enumerate(ranked.items):
        mark = " " if before is None else _mark(rank, before.get(item.item_id))
        sources = ", ".join(item.sources)
        lines.append(
            f"{rank + 1:4d} {mark} {printable(item.item_id):<{id_width}}  {_title(item.title):<{title_width}}"
            f"  {item.score:8.4f}  {sources}".rstrip()
        )
    if not ranked.items:
        lines.append("     nothing to recommend")
    return "\n".join(lines)


def update(name: str, new: Update, previous: RecommendationList | None, now: datetime) -> str:
    """A list of a stream, with when and why it came."""
    at = now.isoformat(sep=" ", timespec="milliseconds")
    return f"{at}  cause: {new.cause}  {ranking(name, new.list, previous)}"


def tracked(done: Tracked) -> str:
    """Where the event lies in the log."""
    position = done.position
    return printable(
        f"event {done.event_id} is in {position.topic}, partition {position.partition}, offset {position.offset}"
    )


def status(engine: Status) -> str:
    """One `name  value` line per figure."""
    rows = [
        ("serving", "yes" if engine.serving else "no, still catching up with the log"),
        ("model version", str(engine.model_version) if engine.model_version else "none yet"),
        *((f"  {name}", f"{value:.4g}") for name, value in engine.model_metrics.items()),
        *_models(engine),
        ("versions served", ", ".join(map(str, engine.model_versions)) or "none yet"),
        ("users", f"{engine.users:,} of at most {engine.users_limit:,}"),
        ("users evicted", f"{engine.users_evicted:,}"),
        ("users forgotten", f"{engine.users_forgotten:,}"),
        ("items", f"{engine.items:,}"),
        ("items evicted", f"{engine.items_evicted:,}"),
        ("relation targets", f"{engine.targets:,}"),
        ("targets evicted", f"{engine.targets_evicted:,}"),
        ("items in index", f"{engine.index_items:,}"),
        ("events folded", f"{engine.events_folded:,}"),
        ("duplicate events", f"{engine.events_duplicate:,}"),
        ("redelivered", f"{engine.records_redelivered:,}"),
        ("items folded", f"{engine.items_folded:,}"),
        ("dead-lettered", f"{engine.events_dead_lettered:,}"),
        ("lag", f"{engine.lag:,}"),
        ("partitions", f"{_numbers(engine.partitions)} of {engine.partitions_total}"),
        ("snapshot", f"{engine.snapshot_time:%Y-%m-%d %H:%M:%S} UTC" if engine.snapshot_time else "none yet"),
        ("open streams", f"{engine.streams:,}"),
        ("failed calls", f"{engine.failed_calls:,}"),
        ("uptime", f"{engine.uptime_s:,.0f} s"),
        *((f"  {_partition(p)}", f"folded up to offset {p.offset}") for p in engine.reflects),
    ]
    return table(rows)


def _models(engine: Status) -> list[tuple[str, str]]:
    """Where the model is from, where that is not as it should be, and which others there are."""
    rows = []
    if engine.model_origin is ModelOrigin.LOCAL_COPY:
        rows.append(("  from", "the engine's own copy, because the registry could not give the one that is to serve"))
    if engine.building is not None:
        rows.append(("  building", f"version {engine.building.version}, {100 * engine.building.progress:.0f}%"))
    if engine.refused is not None:
        rows.append(("  refused", f"version {engine.refused.version}: {printable(engine.refused.reason)}"))
    if engine.registry_problem:
        rows.append(("  registry problem", printable(engine.registry_problem)))
    return rows


def forgotten(done: Forgotten) -> str:
    """Who is forgotten, a line each, and where the log says so."""
    lines = [
        f"forgotten: user {subject.user_id}" if subject.user_id else f"forgotten: session {subject.session_id}"
        for subject in done.subjects
    ]
    lines.append(f"linked sessions were looked for in partitions {_numbers(done.partitions)}")
    lines += [f"written to {_partition(p)}, offset {p.offset}" for p in done.positions]
    return "\n".join(map(printable, lines))


def state_digest(state: StateDigest) -> str:
    """A line per partition of the events topic, then the catalog and what it reflects."""
    return table(
        [
            *(
                (_partition(p.reflects), f"{p.digest}  {p.events_folded:,} events, up to offset {p.reflects.offset}")
                for p in state.partitions
            ),
            ("catalog", state.catalog_digest),
            *((f"  {_partition(p)}", f"up to offset {p.offset}") for p in state.catalog_reflects),
        ]
    )


def snapshot(reflects: Iterable[Position]) -> str:
    """A line per partition."""
    return table([(_partition(p), f"safe up to offset {p.offset}") for p in reflects])


def table(rows: list[tuple[str, str]]) -> str:
    """A line per row, the second column under the second."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{printable(name):<{width}}  {value}" for name, value in rows)


def _partition(position: Position) -> str:
    return f"{position.topic}/{position.partition}"


def _numbers(partitions: Iterable[int]) -> str:
    return ", ".join(map(str, partitions)) or "none"


def _header(name: str, ranked: RecommendationList) -> str:
    unknown = "" if ranked.known else "  (no events of this one yet)"
    return f"{printable(name)}  origin: {ranked.origin}  model version: {ranked.model_version}{unknown}"


def _mark(rank: int, before: int | None) -> str:
    if before is None:
        return "+"
    return " " if rank == before else "^" if rank < before else "v"


def _title(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _TITLE_WIDTH else text[: _TITLE_WIDTH - 1] + "…"


def printable(text: str) -> str:
    """A text in which nothing steers the terminal: catalog text, for instance, is not ours."""
    return "".join(c if c.isprintable() else "?" for c in text)
