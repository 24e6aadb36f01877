"""The rehearsal has a fault for every alert, and says of each whether it was seen."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.prometheus import faults, rehearsal
from deploy.prometheus.faults import Fault
from deploy.prometheus.rehearsal import Rehearsal, report
from deploy.prometheus.scaled_rules import RULES, scaled
from deploy.prometheus.server import Prometheus, PrometheusError
from tests.deploy.prometheus.test_rules import ALERTS


def all_faults() -> list[Fault]:
    world: Any = SimpleNamespace(
        broker=SimpleNamespace(pid=0),
        fill_disk=None,
        clear_disk=None,
        start_trainer=None,
        start_engine=None,
        address="",
    )
    shoppers: Any = SimpleNamespace()
    single = [
        faults.no_model(world),
        faults.broker_away(world),
        faults.worse_lists(shoppers),
        faults.engine_gone(world),
    ]
    several = [faults.busy_machine(world, shoppers), faults.bad_input(world, shoppers), faults.stand_in_faults()]
    return [*single, *chain.from_iterable(several)]


def test_every_alert_has_one_fault() -> None:
    alerts = [alert for fault in all_faults() for alert in fault.alerts]
    assert sorted(alerts) == sorted(ALERTS)


def test_times_are_divided_and_nothing_else() -> None:
    rule = """
      - record: ousel:x:ratio_rate5m
        expr: rate(a{le="0.5"}[5m] offset 1h) > 14.4 and time() - b > 86400 and c < 14 * 86400 and d > 100
        for: 2m"""
    assert (
        scaled(rule, 60)
        == """
      - record: ousel:x:ratio_rate5m
        expr: rate(a{le="0.5"}[5000ms] offset 60000ms) > 14.4 and time() - b > 1440 and c < 14 * 1440 and d > 100
        for: 2000ms"""
    )


def test_no_window_of_the_rules_is_left_as_it_is() -> None:
    for path in RULES.glob("*.yml"):
        text = scaled(path.read_text(), 60)
        assert not [line for line in text.splitlines() if "[1h]" in line or "for: 2m" in line or "86400" in line]


class Alarm:
    """A Prometheus in which alerts fire while a fault goes on, but for those that never do."""

    def __init__(self, deaf: tuple[str, ...] = (), stuck: tuple[str, ...] = ()) -> None:
        self._deaf, self._stuck = deaf, stuck
        self.on: set[str] = set()

    def fault(self, *alerts: str, lasting: bool = False) -> Fault:
        def begin() -> None:
            self.on |= set(alerts) - set(self._deaf)

        def end() -> None:
            self.on -= set(alerts) - set(self._stuck)

        return Fault(alerts, "a test", begin, end, lasting=lasting)

    def firing(self) -> set[tuple[str, str]]:
        return {(alert, "") for alert in self.on}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRES_S", "_CLEARS_S", "_LASTING_S"):
        monkeypatch.setattr(rehearsal, name, 0.0)


def test_alerts_that_fire_and_clear_are_seen_with_their_times(impatient: None, capsys: Any) -> None:
    alarm: Any = Alarm()
    played = Rehearsal(alarm, 60)
    played.play([alarm.fault("One", "Two"), alarm.fault("Long", lasting=True)])
    seen = played.seen()
    assert [(one.alert, one.fired_s is not None, one.cleared_s is not None) for one in seen] == [
        ("One", True, True), ("Two", True, True), ("Long", True, True),
    ]  # fmt: skip
    assert report(seen, 60) == 0
    assert "3 of 3 alerts fired and cleared, all times divided by 60" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"deaf": ("Two",)}, {"stuck": ("Two",)}])
def test_an_alert_that_does_not_fire_or_clear_fails_the_rehearsal(
    impatient: None, capsys: Any, wrong: dict[str, tuple[str, ...]]
) -> None:
    alarm: Any = Alarm(**wrong)
    played = Rehearsal(alarm, 60)
    played.play([alarm.fault("One", "Two")])
    assert report(played.seen(), 60) == 1
    assert "1 of 2" in capsys.readouterr().out


def test_a_prometheus_that_is_not_there_is_said_in_one_line(tmp_path: Any) -> None:
    with pytest.raises(PrometheusError, match=r"^--prometheus: .*nowhere can't be started: "):
        Prometheus(tmp_path / "nowhere", tmp_path / "work", {}, None, 1.0)
