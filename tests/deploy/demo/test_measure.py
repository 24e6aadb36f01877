"""What counts as a hit and as a fresh list."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from ousel import Cause, Origin, Position, Recommendation, RecommendationList

from deploy.demo.measure import Measurement


def _list(*item_ids: str, reflects: Mapping[int, int] | None = None) -> RecommendationList:
    positions = tuple(Position("events", partition, offset) for partition, offset in (reflects or {}).items())
    items = tuple(Recommendation(item_id, item_id, 1.0, ()) for item_id in item_ids)
    return RecommendationList(items, Origin.MODEL, True, 1, positions)


@pytest.fixture
def measurement() -> Measurement:
    return Measurement(["u", "v"], k=3)


def test_an_event_is_scored_against_the_list_received_before_it_was_sent(measurement: Measurement) -> None:
    measurement.received("u", _list("a", "b"), Cause.SUBSCRIBED, 0.0)
    measurement.sent("u", "c", ["c"], 1.0)
    measurement.received("u", _list("c"), Cause.EVENTS, 1.1)  # too late for the event above
    measurement.sent("u", "c", [], 2.0)
    assert (measurement.hits.events, measurement.hits.ousel_hits, measurement.hits.popularity_hits) == (2, 1, 1)
    assert (measurement.hits.ousel, measurement.hits.popularity) == (0.5, 0.5)


def test_an_event_before_the_first_list_counts_for_neither(measurement: Measurement) -> None:
    measurement.received("v", _list("a"), Cause.SUBSCRIBED, 0.0)  # somebody else's
    measurement.sent("u", "a", ["a"], 1.0)
    assert (measurement.hits.events, measurement.hits.popularity_hits, measurement.hits.unmeasured) == (0, 0, 1)
    assert measurement.without_list == 1


def test_only_the_first_k_of_both_lists_count(measurement: Measurement) -> None:
    measurement.received("u", _list("a", "b", "c", "d"), Cause.SUBSCRIBED, 0.0)
    measurement.sent("u", "d", ["x", "y", "z", "d"], 1.0)
    measurement.sent("u", "c", ["x", "y", "c"], 1.0)
    assert (measurement.hits.ousel_hits, measurement.hits.popularity_hits) == (1, 1)


def test_freshness_ends_with_the_first_list_that_reflects_the_event(measurement: Measurement) -> None:
    event = measurement.sent("u", "a", [], 10.0)
    measurement.acked(event, partition=2, offset=7)
    measurement.received("u", _list("x", reflects={2: 6, 3: 9}), Cause.EVENTS, 10.020)
    measurement.received("u", _list("y", reflects={2: 7}), Cause.EVENTS, 10.050)
    measurement.received("u", _list("z", reflects={2: 8}), Cause.EVENTS, 10.090)
    fresh = measurement.freshness()
    assert fresh.samples == 1
    assert fresh.p50_ms == pytest.approx(50.0)


def test_a_list_that_overtakes_the_logs_answer_is_matched_once_that_comes(measurement: Measurement) -> None:
    event = measurement.sent("u", "a", [], 10.0)
    measurement.received("u", _list("x", reflects={0: 4}), Cause.EVENTS, 10.005)  # does not reflect it
    measurement.received("u", _list("y", reflects={0: 5}), Cause.EVENTS, 10.030)
    assert measurement.freshness().samples == 0
    measurement.acked(event, partition=0, offset=5)
    assert measurement.freshness().p50_ms == pytest.approx(30.0)


def test_every_event_is_measured_against_the_first_list_that_reflects_it(measurement: Measurement) -> None:
    first = measurement.sent("u", "a", [], 10.0)
    second = measurement.sent("u", "b", [], 10.2)
    third = measurement.sent("u", "c", [], 10.3)
    for offset, event in enumerate((first, second, third)):
        measurement.acked(event, 0, offset)
    measurement.received("u", _list("x", reflects={0: 1}), Cause.EVENTS, 10.31)
    measurement.received("u", _list("y", reflects={0: 2}), Cause.EVENTS, 10.35)
    fresh = measurement.freshness()
    assert (fresh.samples, fresh.superseded) == (3, 1)
    assert (fresh.p50_ms, fresh.p99_ms) == (pytest.approx(110.0), pytest.approx(310.0))


def test_an_event_sent_after_a_list_came_is_never_reflected_by_it(measurement: Measurement) -> None:
    first = measurement.sent("u", "a", [], 10.0)
    measurement.received("u", _list("x", reflects={0: 0}), Cause.EVENTS, 10.04)
    second = measurement.sent("u", "b", [], 10.5)  # not acked yet: must not hold up the list above
    measurement.acked(first, 0, 0)
    assert measurement.freshness().p50_ms == pytest.approx(40.0)
    measurement.acked(second, 0, 1)
    assert measurement.freshness().samples == 1


def test_a_list_that_came_for_the_model_is_no_sample_of_freshness(measurement: Measurement) -> None:
    event = measurement.sent("u", "a", [], 10.0)
    measurement.acked(event, 0, 0)
    measurement.received("u", _list("x", reflects={0: 0}), Cause.MODEL, 55.0)
    fresh = measurement.freshness()
    assert (fresh.samples, fresh.unchanged, fresh.p50_ms) == (0, 1, None)


def test_percentiles_are_those_of_the_newest_samples(measurement: Measurement) -> None:
    for number in range(200):
        event = measurement.sent("u", "a", [], float(number))
        measurement.acked(event, 0, number)
        measurement.received("u", _list(str(number), reflects={0: number}), Cause.EVENTS, number + number / 1000)
    assert measurement.freshness().p50_ms == pytest.approx(100.0)
    assert measurement.freshness().p99_ms == pytest.approx(198.0)
    assert measurement.freshness(last=10).p50_ms == pytest.approx(195.0)
