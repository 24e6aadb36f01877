"""How a benchmark ends: a table for people, a JSON file, and the same JSON as the last line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path("build/benchmarks")

Figure = float | int | str | bool


def shown(figures: Mapping[str, Figure], *names: str) -> str:
    """Some figures, for a cell of the table."""
    return ", ".join(f"{figures[name]:,}" for name in names)


def report(name: str, title: str, rows: Sequence[tuple[str, str]], figures: Mapping[str, Figure]) -> None:
    """Prints the table, writes build/benchmarks/NAME.json and prints its one JSON object.

    Args:
        rows: what was measured, and the figure with its unit.
        figures: what the JSON object holds.
    """
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
    text = json.dumps(figures)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(text + "\n")
    print(text, flush=True)
