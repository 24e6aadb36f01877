"""Engines that follow one registry: pushes, roll backs, pins, restarts, and a registry that is away or damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from engine import metrics
from engine.generations import RollBackRefused, StaleVersion
from engine.model.weights import Weights, WeightsError
from engine.ranking.query import Query
from engine.registry.errors import NoSuchModel, PushOvertaken, RegistryError, VersionPinned
from engine.registry.ledger import ModelState, model_record
from engine.registry.standing import Source
from tests.engine.models import small_weights
from tests.engine.registry.engines import DEADLINE_S, FollowingEngine, pushed, until
from tests.engine.registry.memory import MemoryPlace, MemoryTopic
from tests.engine.registry.test_ledger import model
from tests.engine.worlds import ITEMS

Start = Callable[..., FollowingEngine]


@pytest.fixture
def topic() -> MemoryTopic:
    return MemoryTopic()


@pytest.fixture
def place() -> MemoryPlace:
    return MemoryPlace()


@pytest.fixture
def start(topic: MemoryTopic, place: MemoryPlace, tmp_path: Path) -> Iterator[Start]:
    """Starts engines, each with a folder by its name, and stops those that are left."""
    with ExitStack() as started:

        def begin(name: str = "a", **options: object) -> FollowingEngine:
            engine = started.enter_context(FollowingEngine(topic, place, tmp_path / name, name, **options))
            engine.start()
            return engine

        yield begin


def bad_weights() -> Weights:
    """They fit, and embed every item alike, which the canary refuses."""
    weights = small_weights(ITEMS, 1)
    with torch.no_grad():
        for parameter in weights.model.parameters():
            parameter.zero_()
    return weights


def listed(engine: FollowingEngine, user: str = "u1") -> list[tuple[str, float]]:
    ranking = engine.pipeline.ask(Query(user, "", 10)).result(DEADLINE_S)
    return [(item.item_id, item.score) for item in ranking.items]


def test_one_push_is_served_by_all_engines_and_by_one_that_starts_later(start: Start):
    first, second = start("a"), start("b")
    first.wait_until_ready()
    assert first.serving == 0
    second.wait_until_ready()
    first.push(1)
    for engine in (first, second, start("c")):
        engine.wait_for(1)
        until(lambda one=engine: one.models.standing().source is Source.REGISTRY, "it is said")


def test_a_restart_serves_the_same_lists_before_it_is_ready(start: Start, topic: MemoryTopic, place: MemoryPlace):
    with start("a") as engine:
        engine.push(1)
        engine.wait_for(1)
        engine.push(2)
        engine.wait_for(2)
        before = [listed(engine, f"u{at}") for at in range(5)]
    again = start("a")
    again.wait_until_ready()
    assert again.serving == 2
    for at, wanted in enumerate(before):
        got = listed(again, f"u{at}")
        assert [item for item, _ in got] == [item for item, _ in wanted]
        assert [score for _, score in got] == pytest.approx([score for _, score in wanted], abs=1e-4)


def test_no_engine_is_ready_while_its_model_is_on_its_way(start: Start, place: MemoryPlace):
    with start("a") as engine:
        engine.push(1)
        engine.wait_for(1)
    place.hold.clear()
    other = start("b")
    until(lambda: other.registry.reader.ledger is not None, "the topic is read")
    assert not other.ready.wait(0.3)
    place.hold.set()
    other.wait_until_ready()
    assert other.serving == 1


def test_a_roll_back_reaches_all_and_lasts_over_a_restart(start: Start):
    first, second = start("a"), start("b")
    for version in (1, 2, 3):
        first.push(version)
        first.wait_for(version)
        second.wait_for(version)
    back = first.models.roll_back(3, "me")
    assert (back.version, back.serving) == (2, True)
    second.wait_for(2)
    assert second.models.roll_back(None, "me").version == 1
    for engine in (first, second, start("c")):
        engine.wait_for(1)
    with pytest.raises(RollBackRefused, match="there is no model before version 1"):
        first.models.roll_back(None, "me")
    with pytest.raises(RollBackRefused, match="expected_version must be 1, the one that serves, got 3"):
        first.models.roll_back(3, "me")
    with pytest.raises(StaleVersion, match="must be > 3"):
        first.push(3)
    first.push(4)
    second.wait_for(4)


def test_a_pinned_version_serves_whatever_is_pushed(start: Start):
    engine, other = start("a"), start("b")
    for version in (1, 2):
        engine.push(version)
        engine.wait_for(version)
    with pytest.raises(NoSuchModel, match=r"version must be one of the registry's \(2, 1\), got 7"):
        engine.models.pin(7, "me")
    engine.models.pin(1, "me")
    for one in (engine, other):
        one.wait_for(1)
    assert engine.push(3).pinned == 1
    with pytest.raises(VersionPinned, match="version 1 is pinned"):
        engine.models.roll_back(None, "me")
    assert engine.serving == 1
    engine.models.pin(None, "me")
    for one in (engine, other):
        one.wait_for(3)


def test_what_its_canary_refuses_is_withdrawn_for_all_by_the_engine_that_took_it(start: Start):
    first, second = start("a"), start("b")
    first.push(1)
    for engine in (first, second):
        engine.wait_for(1)
    first.push(2, bad_weights())
    until(lambda: first.registry.ledger.find(2).state is ModelState.WITHDRAWN, "it is withdrawn")
    refused = first.models.standing().refused
    assert refused is not None and (refused.version, "must have length 1" in refused.reason) == (2, True)
    assert "must have length 1" in first.registry.ledger.find(2).reason
    assert metrics.MODEL_REFUSED._value.get() == 1
    assert (first.serving, second.serving) == (1, 1)
    first.push(3)
    for engine in (first, second):
        engine.wait_for(3)
    until(lambda: first.models.standing().refused is None, "the refusal is history")


def test_an_engine_that_alone_refuses_keeps_its_model_and_the_others_go_on(start: Start, topic: MemoryTopic):
    first, second = start("a"), start("b")
    first.push(1)
    for engine in (first, second):
        engine.wait_for(1)
    second.pipeline.installer._try = lambda trial: (_ for _ in ()).throw(WeightsError("not here"))
    first.push(2)
    first.wait_for(2)
    until(lambda: second.models.standing().refused is not None, "it is refused")
    assert (second.serving, second.models.standing().refused.reason) == (1, "not here")
    assert second.registry.ledger.find(2).state is ModelState.SERVING


def test_weights_that_are_none_or_do_not_fit_are_refused_before_anything_is_stored(
    start: Start, place: MemoryPlace, topic: MemoryTopic
):
    engine = start()
    with pytest.raises(WeightsError, match="content_dim must be"):
        engine.push(1, small_weights(ITEMS, content_dim=9))
    assert (place.files, topic.records()) == ({}, [])


def test_a_push_that_is_overtaken_is_told_so_and_leaves_nothing(start: Start, topic: MemoryTopic, place: MemoryPlace):
    engine = start()
    engine.push(1)
    topic.before_write = [model_record(model(2, "elsewhere"), 1)]
    with pytest.raises(PushOvertaken, match="another push was announced first, version 2: version 2 is not taken"):
        engine.push(2)
    assert engine.registry.ledger.find(2).model.engine == "elsewhere"
    assert [name for name in place.files if name.startswith("2-")] == []
    assert engine.push(3).newest == 3


def test_old_models_are_deleted_beyond_what_is_kept(start: Start, place: MemoryPlace):
    engine = start()
    for version in (1, 2, 3, 4):
        engine.push(version)
    engine.wait_for(4)
    assert engine.models.prune(2) == [2, 1]
    assert sorted(name.partition("-")[0] for name in place.files) == ["3", "3", "4", "4"]
    assert engine.models.prune(2) == []
    assert engine.push(5).newest == 5


def test_a_registry_that_is_away_is_waited_for_and_then_the_local_copy_serves(
    start: Start, topic: MemoryTopic, place: MemoryPlace
):
    with start("a") as engine:
        engine.push(1)
        engine.wait_for(1)
        until(lambda: engine.local.model() is not None, "a copy is kept")
    topic.away = True
    again = start("a", wait_s=0.3)
    again.wait_until_ready()
    standing = again.models.standing()
    assert (again.serving, standing.source) == (1, Source.LOCAL_COPY)
    assert "can't be read: it is away" in standing.problem
    until(lambda: metrics.REGISTRY_PROBLEM._value.get() == 1, "the metric says so")
    with pytest.raises(RegistryError, match="try again later"):
        again.models.accept(pushed(2))
    topic.away = False
    until(lambda: again.models.standing().source is Source.REGISTRY, "the registry is back")
    until(lambda: metrics.REGISTRY_PROBLEM._value.get() == 0, "the metric says so")


def test_without_a_registry_and_a_copy_an_engine_serves_by_counting_and_says_so(start: Start, topic: MemoryTopic):
    topic.away = True
    engine = start("a", wait_s=0.2)
    engine.wait_until_ready()
    assert (engine.serving, engine.models.standing().source) == (0, Source.NONE)
    assert engine.models.standing().problem
    topic.away = False
    engine.push(1)
    engine.wait_for(1)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_file_is_named_and_the_local_copy_of_the_model_before_serves(
    start: Start, place: MemoryPlace, damage: str
):
    with start("a") as engine:
        engine.push(1)
        engine.wait_for(1)
        until(lambda: engine.local.model() is not None, "a copy is kept")
    with start("b") as other:
        other.wait_until_ready()
        other.push(2)
        other.wait_for(2)
    (name,) = (name for name in place.files if name.startswith("2-") and name.endswith(".safetensors"))
    whole = place.files.pop(name)
    if damage == "truncated":
        place.files[name] = whole[:-1]
    again = start("a", wait_s=0.2)
    again.wait_until_ready()
    standing = again.models.standing()
    assert (again.serving, standing.source) == (1, Source.LOCAL_COPY)
    assert name in standing.problem
    place.files[name] = whole
    again.wait_for(2)
    until(lambda: again.models.standing().problem == "", "it is well again")


def test_a_local_copy_that_was_taken_back_is_not_served(start: Start, place: MemoryPlace, topic: MemoryTopic):
    with start("a") as engine, start("b") as other:
        for version in (1, 2):
            engine.push(version)
            engine.wait_for(version)
        until(lambda: engine.local.model().version == 2, "a copy is kept")
        place.hold.clear()
        other.models.roll_back(2, "me")
        engine.wait_for(1)
        place.hold.set()
        until(lambda: engine.local.model() is not None and engine.local.model().version == 1, "the copy follows")


def test_a_build_is_not_cut_short_by_a_newer_model_and_ends_where_its_own_is_taken_back(start: Start):
    engine, other = start("a"), start("b")
    engine.push(1)
    engine.wait_for(1)
    install, begun, go = engine.pipeline.installer.install, [], threading.Event()

    def held(data, version, model_metrics, build):
        begun.append(version)
        go.wait(DEADLINE_S)
        return install(data, version, model_metrics, build)

    engine.pipeline.installer.install = held
    other.push(2)
    until(lambda: begun == [2], "it builds version 2")
    assert engine.models.standing().building.version == 2
    other.push(3)
    other.push(4)
    go.set()
    engine.wait_for(4)
    assert begun == [2, 4]  # the newest that is named comes next
    until(lambda: engine.models.standing().building is None, "it is said")


def test_a_withdrawn_first_model_leaves_no_model(start: Start):
    engine = start("a")
    engine.push(1)
    engine.wait_for(1)
    engine.registry.withdraw(1, "it must go")
    engine.wait_for(0)
    until(lambda: engine.models.standing().source is Source.NONE, "it is said")


def test_the_weights_of_a_push_are_kept_as_they_came(start: Start, place: MemoryPlace):
    engine, push = start(), pushed(1)
    until(lambda: engine.registry.reader.ledger is not None, "the topic is read")
    engine.models.accept(push)
    assert [data for name, data in place.files.items() if name.endswith(".safetensors")] == [push.data]
