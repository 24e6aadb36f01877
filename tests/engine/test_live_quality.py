"""Lists that were sent are judged by their users' next events, by model version, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client import REGISTRY

from engine import live_quality, metrics
from engine.config import QualityConfig
from engine.events.batch import EventBatch
from engine.live_quality import VERSIONS, LiveQuality
from engine.ranking.query import Origin, RankedItem, Ranking
from engine.state.subjects import subject_key

NOW_S = 1_700_000_000.0
FIGURES = ("judged_total", "hits_total", "reciprocal_ranks_total")


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def counted_anew() -> Iterator[None]:
    for metric in live_quality._BY_VERSION:
        metric.clear()
    yield


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quality(clock: Clock) -> LiveQuality:
    made = LiveQuality(QualityConfig(lists=3, window_s=60.0), clock)
    made.available = 10
    return made


def ranking(*item_ids: str, version: int = 7, origin: Origin = Origin.MODEL) -> Ranking:
    items = tuple(RankedItem(item_id, "", 1.0, ()) for item_id in item_ids)
    return Ranking(items, origin, True, version, ())


def events(*rows: tuple[str, str], after_s: float = 1.0, target: str = "", forget: bool = False) -> EventBatch:
    count = len(rows)
    users, items = zip(*rows, strict=True)
    zeros = dict.fromkeys(("kind", "time_ms", "value", "partition", "offset"), np.zeros(count, np.int64))
    return EventBatch(
        event_id=[""] * count, user_id=users, session_id=[""] * count, item_id=items, target_id=[target] * count,
        timestamp_ms=np.full(count, round((NOW_S + after_s) * 1000)), forget=np.full(count, forget),
        ends=np.zeros(count, bool), **zeros,
    )  # fmt: skip


def judge(quality: LiveQuality, batch: EventBatch) -> None:
    quality.judge(batch, list(map(subject_key, batch.user_id, batch.session_id)))


def figures(version: int = 7) -> list[float | None]:
    return [REGISTRY.get_sample_value(f"ousel_live_{name}", {"version": str(version)}) for name in FIGURES]


def coverage(version: int = 7) -> float | None:
    return REGISTRY.get_sample_value("ousel_live_coverage_ratio", {"version": str(version)})


def test_a_hit_counts_with_its_place_and_a_miss_counts_as_judged(quality):
    quality.send("ann", ranking("a", "b", "c", "d"))
    quality.send("bob", ranking("a", "b"))
    judge(quality, events(("ann", "d"), ("bob", "z"), ("eve", "a")))
    assert figures() == [2, 1, 0.25]


def test_a_list_is_judged_once_by_the_first_event_after_it(quality):
    quality.send("ann", ranking("a", "b"))
    judge(quality, events(("ann", "z"), ("ann", "a")))
    judge(quality, events(("ann", "b")))
    assert figures() == [1, 0, 0]


def test_an_event_that_was_written_before_the_list_does_not_judge_it_and_a_later_one_still_does(quality):
    quality.send("ann", ranking("a"))
    judge(quality, events(("ann", "a"), after_s=-0.2))
    assert figures() == [0, 0, 0]
    judge(quality, events(("ann", "a"), after_s=0.2))
    assert figures() == [1, 1, 1]


def test_an_event_beyond_the_window_judges_nothing(quality):
    quality.send("ann", ranking("a"))
    judge(quality, events(("ann", "a"), after_s=60.5))
    assert figures() == [0, 0, 0]


def test_a_relation_judges_nothing_and_a_user_who_is_forgotten_is_not_kept(quality):
    quality.send("ann", ranking("a"))
    judge(quality, events(("ann", "a"), target="brand"))
    judge(quality, events(("ann", ""), forget=True))
    judge(quality, events(("ann", "a")))
    assert figures() == [0, 0, 0]


def test_lists_that_no_model_ordered_count_for_version_0(quality):
    quality.send("ann", ranking("a", origin=Origin.POPULARITY))
    judge(quality, events(("ann", "a")))
    assert (figures(0), figures(7)) == ([1, 1, 1], [None] * 3)


def test_beyond_the_limit_the_list_that_was_sent_longest_ago_is_not_judged(quality):
    for user in ("ann", "bob", "cid", "ann", "dan"):
        quality.send(user, ranking("a"))
    assert REGISTRY.get_sample_value("ousel_live_lists") == 3
    judge(quality, events(("bob", "a")))
    assert figures() == [0, 0, 0]
    judge(quality, events(("ann", "a"), ("cid", "a"), ("dan", "a")))
    assert figures()[0] == 3


def test_only_the_versions_that_were_used_last_are_shown(quality):
    quality.send("old", ranking("a", version=1))
    for version in range(2, VERSIONS + 1):
        quality.send("ann", ranking("a", version=version))
    assert figures(1) == [0, 0, 0]
    quality.send("ann", ranking("a", version=VERSIONS + 1))
    judge(quality, events(("old", "a")))
    assert (figures(1), coverage(1)) == ([None] * 3, None)
    shown = [one.labels["version"] for one in metrics.LIVE_JUDGED.collect()[0].samples if one.name.endswith("_total")]
    assert len(shown) == VERSIONS


def test_coverage_is_the_share_of_different_items_of_the_last_full_hour(quality, clock):
    quality.send("ann", ranking("a", "b"))
    quality.send("bob", ranking("b", "c"))
    assert coverage() == pytest.approx(0.3, abs=1e-3)
    clock.now_s += 3600
    quality.send("ann", ranking("x"))
    assert coverage() == pytest.approx(0.3, abs=1e-3)
    clock.now_s += 3600
    quality.send("ann", ranking("x"))
    assert coverage() == pytest.approx(0.1, abs=1e-3)


def test_a_large_catalog_is_counted_within_a_hundredth(quality):
    quality.available = 600_000
    for first in range(0, 400_000, 100):
        quality.send("ann", ranking(*map(str, range(first, first + 100))))
    assert coverage() == pytest.approx(400 / 600, rel=0.01)


def test_nothing_is_kept_where_no_list_is_to_be_judged(clock):
    quality = LiveQuality(QualityConfig(lists=0), clock)
    quality.send("ann", ranking("a"))
    judge(quality, events(("ann", "a")))
    assert figures() == [None] * 3
