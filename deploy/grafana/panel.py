"""A dashboard as its authors write it: rows of panels, each with the queries that it draws.

From these come Grafana's JSON (`grafana_json`), the check of every query (`check`) and the pictures (`pictures`), so
that all of them show the same.
"""

from __future__ import annotations

from typing import NamedTuple


class Query(NamedTuple):
    """A query for Prometheus, with `$instance` for the engines that are chosen and `$__rate_interval` for windows.

    Attributes:
        legend: names each series by its labels, as in `{{stage}}`.
    """

    legend: str
    expression: str


class Panel(NamedTuple):
    """A graph over time, or with `stat` the newest value alone.

    Attributes:
        unit: by Grafana's name for it.
        least: drawn as a line that the values should not fall below.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    description: str
    stat: bool = False
    least: float | None = None


class Board(NamedTuple):
    """A dashboard.

    Attributes:
        uid: its name in addresses and of its file; stays the same, so that links to it stay whole.
        program: `engine` or `trainer`: whose instances `$instance` chooses among.
    """

    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    program: str = "engine"

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for _, panels in self.rows for panel in panels)


def graph(
    title: str,
    unit: str,
    description: str,
    *queries: tuple[str, str],
    least: float | None = None,
) -> Panel:
    """A graph of some queries, each a legend and an expression; `least` is what they should not fall below."""
    return Panel(title, unit, tuple(Query(*query) for query in queries), description, least=least)


def stat(title: str, unit: str, description: str, expression: str) -> Panel:
    """The newest value of one query."""
    return Panel(title, unit, (Query("", expression),), description, stat=True)
