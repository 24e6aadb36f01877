"""Runs the query of every panel against a Prometheus that scrapes a running engine, and says whether each has data.

    python -m deploy.grafana.check --prometheus PATH [--seconds 90] [--pictures docs/images]

It starts the embedded broker, an engine, a trainer, people who shop, and the Prometheus at PATH, pushes two models, has
the trainer train a third, and exits with 1 where a panel has no data. With --pictures it draws each dashboard's panels.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import ousel
from rich.console import Console
from rich.table import Table

from deploy.grafana import pictures
from deploy.grafana.boards import BOARDS
from deploy.grafana.panel import Panel, Query
from deploy.prometheus.server import Prometheus, PrometheusError, Series, wait_until
from deploy.prometheus.world import Shoppers, World, WorldError

_RULES = Path(__file__).parents[1] / "prometheus" / "rules"
_SCRAPE_S, _WINDOW = 2.0, "20s"
_POINTS = 90
_TRAINED_S = 900.0


def plain(expression: str) -> str:
    """A panel's expression without Grafana's variables: all instances, a window of 20 s."""
    return expression.replace("$__rate_interval", _WINDOW).replace("$instance", ".*")


def legend_of(query: Query, series: Series) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), query.legend)


def collect(prometheus: Prometheus, panel: Panel, began_s: float) -> list[tuple[str, Series]]:
    """The series of a panel, without the values that are no numbers, with their legends."""
    found = []
    for query in panel.queries:
        now_s = time.time()
        step_s = max(1.0, (now_s - began_s) / _POINTS)
        for series in prometheus.query_range(plain(query.expression), began_s, now_s, step_s):
            numbers = [(at, value) for at, value in zip(series.times_s, series.values, strict=True) if value == value]
            if numbers:
                times_s, values = zip(*numbers, strict=True)
                found.append((legend_of(query, series), Series(series.labels, times_s, values)))
    return found


def check(prometheus: Prometheus, began_s: float, folder: Path | None) -> tuple[Table, int]:
    """A table of all panels, and how many have no data; draws the pictures into `folder` where there is one."""
    table, missing = Table("dashboard", "panel", "series", "data"), 0
    for board in BOARDS:
        drawn = {panel: collect(prometheus, panel, began_s) for panel in board.panels}
        for panel, series in drawn.items():
            missing += not series
            table.add_row(board.uid, panel.title, str(len(series)), "yes" if series else "NONE")
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            pictures.draw(board, drawn, folder / f"{board.uid}.png")
    return table, missing


def run(binary: Path, seconds: float, folder: Path | None, work: Path) -> int:
    """The exit code: 1 where a panel has no data.

    Raises:
        PrometheusError, WorldError: a part does not start.
    """
    with World(work / "world") as world:
        world.fill()
        targets = {"ousel-engine": [world.metrics_address], "ousel-trainer": [world.trainer_address]}
        with Prometheus(binary, work / "prometheus", targets, _RULES, _SCRAPE_S) as prometheus:
            began_s = time.time()
            with Shoppers(world.address), ousel.Client(world.address, timeout_s=60.0) as client:
                for _ in range(2):
                    time.sleep(seconds / 3)
                    world.push_model()
                with suppress(ousel.OuselError):
                    client.recommend("", k=10)  # a call that fails, for the panel of those
                client.take_snapshot()
                world.train()
                if not wait_until(lambda: prometheus.query("ousel_trainer_model_figure"), _TRAINED_S):
                    raise WorldError(f"the trainer has judged no model within {_TRAINED_S:g} s")
                time.sleep(seconds / 3)
                table, missing = check(prometheus, began_s, folder)
    Console(width=120).print(table)
    panels = sum(len(board.panels) for board in BOARDS)
    print(f"{panels - missing} of {panels} panels have data")
    return 1 if missing else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana.check", description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", type=Path, required=True, help="the program prometheus")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long people shop (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="folder of the pictures; none are drawn without it")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="ousel-check-") as work:
            return run(given.prometheus, given.seconds, given.pictures, Path(work))
    except (PrometheusError, WorldError) as error:
        print(f"deploy.grafana.check: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
