"""Brings about the fault of each alert, and sees the alert fire and clear in a real Prometheus.

    python -m deploy.prometheus.rehearsal --prometheus PATH [--factor 60]

It starts the embedded broker, an engine, a trainer, people who shop, and the Prometheus at PATH with the rules of
deploy/prometheus/rules, all of whose windows, waits and ages are divided by the factor. So is a minute from one scrape
to the next: a machine that can't be scraped every second needs a smaller factor. It takes about ten minutes with the
factor 60, and twice as long with 30. It prints a table, and exits with 1 where an alert did not fire or did not clear.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from deploy.prometheus import faults
from deploy.prometheus.faults import Fault
from deploy.prometheus.scaled_rules import write_scaled
from deploy.prometheus.server import Prometheus, PrometheusError, wait_until
from deploy.prometheus.world import Shoppers, World, WorldError
from engine.metrics_server import MetricsServer
from trainer import metrics as trainer_metrics

_HOST = "127.0.0.1"
_FACTOR = 60.0
# Divided by the factor, as the rules are.
_SCRAPE_S, _FIRES_S, _CLEARS_S, _LASTING_S = (60.0 * minutes for minutes in (1, 300, 300, 900))
_FIRST_S = 60.0 * 5  # for scrapes of a counter before it is raised: else Prometheus does not see that it has risen
_LONG_S = 60.0 * 90  # of ordinary shopping, before the hit rate can fall below that of before
_STARTS_S = 300.0
_TARGETS = 4  # engine, trainer and their stand-ins
_SETTINGS = {
    "OUSEL_SERVING__MAX_LOG_AGE_S": "12", "OUSEL_SERVING__MAX_QUERIES": "4", "OUSEL_KAFKA__REQUEST_TIMEOUT_MS": "1500",
}  # fmt: skip


class Seen(NamedTuple):
    """How long an alert took to fire after its fault had begun, and to clear after it had ended; None: it did not."""

    alert: str
    fault: Fault
    fired_s: float | None
    cleared_s: float | None


class Rehearsal:
    """Begins faults, waits for their alerts, ends them, and waits until these are gone."""

    def __init__(self, prometheus: Prometheus, factor: float) -> None:
        self._prometheus = prometheus
        self._factor = factor
        self._fired: dict[str, float | None] = {}
        self._cleared: dict[str, float | None] = {}
        self._ended_s: dict[str, float] = {}
        self._faults: list[Fault] = []

    def play(self, together: Sequence[Fault]) -> None:
        """Plays faults that don't disturb each other at the same time; what lasts is left to clear meanwhile."""
        self._faults += together
        alerts = [alert for fault in together for alert in fault.alerts]
        if not wait_until(lambda: not self._names() & set(alerts), _CLEARS_S / self._factor):
            print(f"fire without their fault: {sorted(self._names() & set(alerts))}", flush=True)
        for fault in together:
            print(f"begins: {fault.what}", flush=True)
            fault.begin()
        self._wait_until_fired(alerts, time.monotonic())
        for fault in together:
            fault.end()
            self._ended_s |= dict.fromkeys(fault.alerts, time.monotonic())
            print(f"ended: {fault.what}", flush=True)
        short = [alert for fault in together if not fault.lasting for alert in fault.alerts]
        self._wait_until_cleared(short, _CLEARS_S / self._factor)

    def seen(self) -> list[Seen]:
        """Waits until what lasts has cleared; gives all alerts in the order of their faults."""
        lasting = [alert for fault in self._faults if fault.lasting for alert in fault.alerts]
        self._wait_until_cleared(lasting, _LASTING_S / self._factor)
        return [
            Seen(alert, fault, self._fired[alert], self._cleared[alert])
            for fault in self._faults
            for alert in fault.alerts
        ]

    def _wait_until_cleared(self, alerts: Sequence[str], within_s: float) -> None:
        def look() -> bool:
            firing = self._names()
            for alert in alerts:
                if alert not in firing and self._cleared.get(alert) is None:
                    self._cleared[alert] = time.monotonic() - self._ended_s[alert]
            return all(self._cleared.get(alert) is not None for alert in alerts)

        if not wait_until(look, within_s):
            print(f"did not clear: {[alert for alert in alerts if self._cleared.get(alert) is None]}", flush=True)
        for alert in alerts:
            self._cleared.setdefault(alert, None)

    def _wait_until_fired(self, alerts: Sequence[str], began_s: float) -> None:
        def look() -> bool:
            for alert in self._names() & set(alerts):
                self._fired.setdefault(alert, time.monotonic() - began_s)
            return self._fired.keys() >= set(alerts)

        if not wait_until(look, _FIRES_S / self._factor):
            print(f"did not fire: {sorted(set(alerts) - self._fired.keys())}", flush=True)
        for alert in alerts:
            self._fired.setdefault(alert, None)

    def _names(self) -> set[str]:
        return {alert for alert, _ in self._prometheus.firing()}


def run(binary: Path, factor: float, work: Path) -> list[Seen]:
    """Plays everything.

    Raises:
        PrometheusError, WorldError: a part does not start.
    """
    write_scaled(work / "rules", factor)
    with ExitStack() as held:
        world = held.enter_context(World(work / "world", _SETTINGS, own_disk=True))
        world.fill()
        faults.stand_in_at_rest()
        engine = held.enter_context(closing(MetricsServer(_HOST, 0)))
        trainer = held.enter_context(closing(MetricsServer(_HOST, 0, registry=trainer_metrics.REGISTRY)))
        targets = {
            "ousel-engine": [world.metrics_address, f"{_HOST}:{engine.port}"],
            "ousel-trainer": [world.trainer_address, f"{_HOST}:{trainer.port}"],
        }
        scrape_s = _SCRAPE_S / factor
        prometheus = held.enter_context(Prometheus(binary, work / "prometheus", targets, work / "rules", scrape_s))
        if not wait_until(lambda: len(prometheus.query("up == 1")) == _TARGETS, _STARTS_S):
            raise PrometheusError(f"not all of these are scraped: {targets}")
        time.sleep(_FIRST_S / factor)
        shoppers = held.enter_context(Shoppers(world.address, per_s=10.0, streams=5))
        shoppers.hits = 0.6
        rehearsal = Rehearsal(prometheus, factor)
        rehearsal.play([faults.no_model(world), *faults.stand_in_faults()])
        for fault in faults.busy_machine(world, shoppers):  # one would hide the other
            rehearsal.play([fault])
        rehearsal.play(faults.bad_input(world, shoppers))
        time.sleep(_LONG_S / factor)
        rehearsal.play([faults.worse_lists(shoppers)])
        rehearsal.play([faults.engine_gone(world)])
        rehearsal.play([faults.broker_away(world)])
        return rehearsal.seen()


def report(seen: Sequence[Seen], factor: float) -> int:
    """Prints the table; the exit code."""
    table = Table("alert", "fault", "done to", "fires after", "clears after")
    for one in seen:
        told = ["NEVER" if seconds is None else f"{seconds:.0f} s" for seconds in (one.fired_s, one.cleared_s)]
        table.add_row(one.alert, one.fault.what, one.fault.by, *told)
    Console(width=150).print(table)
    good = sum(one.fired_s is not None and one.cleared_s is not None for one in seen)
    print(f"{good} of {len(seen)} alerts fired and cleared, all times divided by {factor:g}")
    return 0 if good == len(seen) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.prometheus.rehearsal", description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", type=Path, required=True, help="the program prometheus")
    parser.add_argument("--factor", type=float, default=_FACTOR, help="times are divided by it (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="ousel-rehearsal-") as work:
            return report(run(given.prometheus, given.factor, Path(work)), given.factor)
    except (PrometheusError, WorldError) as error:
        print(f"deploy.prometheus.rehearsal: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
