"""What the demo leaves behind: a table for people, build/demo.json for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.demo.measure import Freshness, HitRate


@dataclass(frozen=True)
class Result:
    """The live part, as it ended.

    Attributes:
        events_elsewhere: records that others wrote meanwhile, from a second terminal say: events, and users to be
            forgotten, whose record goes to every partition. No other count has them.
        failed_calls: those that the demo's client saw and those that the engine counted.
        problems: what went wrong, one sentence each; nothing where all is well.
    """

    events_produced: int
    events_folded: int
    events_dead_lettered: int
    events_elsewhere: int
    freshness: Freshness
    hits: HitRate
    model_versions: tuple[int, ...]
    model_metrics: Mapping[str, float]
    failed_calls: int
    events_per_second: float
    wanted_per_second: float
    households_followed: int
    setup_s: Mapping[str, float]
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "events_produced": self.events_produced,
            "events_folded": self.events_folded,
            "events_dead_lettered": self.events_dead_lettered,
            "events_elsewhere": self.events_elsewhere,
            "freshness_ms": {
                "p50": _rounded(self.freshness.p50_ms, 2),
                "p99": _rounded(self.freshness.p99_ms, 2),
                "samples": self.freshness.samples,
                "superseded": self.freshness.superseded,
                "unchanged": self.freshness.unchanged,
            },
            "hit_rate_at_20": {
                "ousel": round(self.hits.ousel, 4),
                "popularity": round(self.hits.popularity, 4),
                "events": self.hits.events,
                "unmeasured": self.hits.unmeasured,
            },
            "model_versions": list(self.model_versions),
            "model_metrics": dict(self.model_metrics),
            "failed_calls": self.failed_calls,
            "events_per_second": round(self.events_per_second, 1),
            "wanted_per_second": self.wanted_per_second,
            "households_followed": self.households_followed,
            "setup_s": dict(self.setup_s),
            "problems": list(self.problems),
        }


def write_json(result: Result, path: Path) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(result.as_json(), indent=2) + "\n")
    aside.replace(path)


def print_table(result: Result, console: Console) -> None:
    table = Table("", "", title="The live part", show_header=False)
    table.add_row("events produced", f"{result.events_produced:,}")
    table.add_row("events folded", f"{result.events_folded:,}")
    table.add_row("dead-lettered", f"{result.events_dead_lettered:,}")
    if result.events_elsewhere:
        table.add_row("records from elsewhere", f"{result.events_elsewhere:,}")
    table.add_row("events per second", f"{result.events_per_second:.1f} ({result.wanted_per_second:g} asked for)")
    fresh = result.freshness
    if fresh.p50_ms is not None and fresh.p99_ms is not None:
        table.add_row("freshness p50", f"{fresh.p50_ms:.1f} ms")
        table.add_row("freshness p99", f"{fresh.p99_ms:.1f} ms, of {fresh.samples:,} events")
    table.add_row("hit rate@20, ousel", f"{result.hits.ousel:.4f}")
    table.add_row("hit rate@20, popularity", f"{result.hits.popularity:.4f}, on the same {result.hits.events:,} events")
    table.add_row("households followed", f"{result.households_followed:,}")
    table.add_row("model versions", ", ".join(map(str, result.model_versions)) or "none")
    table.add_row("failed calls", f"{result.failed_calls:,}")
    console.print(table)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
