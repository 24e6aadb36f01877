from __future__ import annotations

import logging

import pytest
from prometheus_client import REGISTRY

from engine.events.source import LogHealth
from engine.readiness import ModelGate, Readiness


@pytest.fixture
def told() -> list[bool]:
    return []


@pytest.fixture
def readiness(told: list[bool]) -> Readiness:
    return Readiness(30.0, lambda: told.append(True), lambda: told.append(False), ModelGate(settled=True))


def test_a_silent_log_ends_readiness_once_and_its_answer_brings_it_back(
    readiness: Readiness, told: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        readiness.observe(LogHealth(0.1))
        assert told == []  # the log answers, but is not caught up with
        readiness.catch_up()
        for age_s in (1.0, 30.0, 30.5, 45.0, 0.2, 0.3):
            readiness.observe(LogHealth(age_s))
    assert told == [True, False, True]
    assert readiness.ready
    silent, back = [record.getMessage() for record in caplog.records]
    assert silent.startswith("the log has not answered for 30 s: not ready until it does")
    assert back == "the log answers again"


def test_an_engine_that_catches_up_while_the_log_is_silent_waits_for_it(readiness: Readiness, told: list[bool]) -> None:
    readiness.observe(LogHealth(40.0))
    readiness.catch_up()
    assert (told, readiness.ready) == ([], False)
    readiness.observe(LogHealth(0.0))
    assert (told, readiness.ready) == ([True], True)


def test_the_metrics_show_age_problems_and_readiness(readiness: Readiness) -> None:
    readiness.catch_up()
    readiness.observe(LogHealth(31.0, problems=2))
    names = ("ousel_log_age_seconds", "ousel_topic_problems", "ousel_ready")
    assert [REGISTRY.get_sample_value(name) for name in names] == [31.0, 2.0, 0.0]
    readiness.observe(LogHealth(1.0))
    assert [REGISTRY.get_sample_value(name) for name in names] == [1.0, 0.0, 1.0]


def test_a_broker_that_has_not_answered_for_ten_seconds_is_not_reachable(readiness: Readiness) -> None:
    shown = []
    for age_s in (0.5, 9.9, 10.1, 0.0):
        readiness.observe(LogHealth(age_s))
        shown.append(REGISTRY.get_sample_value("ousel_kafka_reachable"))
    assert shown == [1, 1, 0, 1]


def test_an_engine_whose_model_is_on_its_way_is_not_ready(told: list[bool]) -> None:
    gate = ModelGate()
    readiness = Readiness(30.0, lambda: told.append(True), lambda: told.append(False), gate)
    readiness.observe(LogHealth(0.1))
    assert not gate.caught_up.is_set()
    readiness.catch_up()
    assert gate.caught_up.is_set()
    readiness.observe(LogHealth(0.1))
    assert told == []
    gate.settled.set()
    readiness.observe(LogHealth(0.1))
    assert told == [True]
