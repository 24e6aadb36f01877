"""Pushed models and roll backs on a running engine."""

from __future__ import annotations

import pytest

from engine.generation import Build, Frozen, build_generation
from engine.generations import RollBackRefused, StaleVersion
from engine.index.hnsw import BuildStoppedError
from engine.model.weights import encode_weights
from engine.ranking.query import Cause, Origin, Query
from engine.ranking.recommender import recommend
from tests.engine.models import small_weights
from tests.engine.test_pipeline import CONFIG, DEADLINE_S, Engine, events
from tests.engine.worlds import ITEMS

QUERY = Query("u1", "", 5)


def install(engine: Engine, version: int) -> None:
    """A model of its own for each version."""
    engine.pipeline.install(encode_weights(small_weights(ITEMS, version)), version, {}).result(DEADLINE_S)


def ask(engine: Engine):
    return engine.pipeline.ask(QUERY).result(DEADLINE_S)


def test_a_roll_back_serves_the_lists_of_the_model_before_from_the_state_of_now():
    with Engine("u1") as engine:
        engine.source.append(events(20))
        install(engine, 1)
        install(engine, 2)
        engine.source.append(events(20, "u2", first=20))
        assert ask(engine).model_version == 2
        assert engine.pipeline.roll_back().result(DEADLINE_S) == 1
        got, status = ask(engine), engine.pipeline.status()
        state = engine.pipeline.state
    fresh = build_generation(small_weights(ITEMS, 1), 1, {}, Frozen.of(state), CONFIG)
    (want,) = recommend([QUERY], state, fresh, CONFIG.ranking)
    assert got.model_version == 1
    assert [item.item_id for item in got.items] == [item.item_id for item in want.items]
    assert [item.score for item in got.items] == pytest.approx([item.score for item in want.items], abs=1e-4)
    assert (status.model_version, status.model_versions) == (1, (1, 2, 1))
    heard = [ranking.model_version for _, cause, ranking in engine.streams.lists if cause == Cause.MODEL]
    assert heard == [1, 2, 1]


def test_a_version_that_was_rolled_back_is_not_given_again():
    with Engine() as engine:
        engine.source.append(events(20))
        for version in (1, 2):
            install(engine, version)
        engine.pipeline.roll_back(2).result(DEADLINE_S)
        with pytest.raises(StaleVersion, match="must be > 2, the newest that has served, got 2"):
            install(engine, 2)
        install(engine, 3)
        assert ask(engine).model_version == 3
        assert engine.pipeline.roll_back(3).result(DEADLINE_S) == 1
        assert ask(engine).model_version == 1


def test_a_roll_back_that_is_refused_changes_nothing():
    with Engine() as engine:
        engine.source.append(events(20))
        for version in (1, 2):
            install(engine, version)
        with pytest.raises(RollBackRefused, match="expected_version must be 2"):
            engine.pipeline.roll_back(1).result(DEADLINE_S)
        assert ask(engine).model_version == 2
        engine.pipeline.roll_back().result(DEADLINE_S)
        with pytest.raises(RollBackRefused, match="no generation before version 1"):
            engine.pipeline.roll_back().result(DEADLINE_S)
        assert ask(engine).model_version == 1


def test_a_model_whose_sessions_cannot_be_kept_is_said(caplog: pytest.LogCaptureFixture):
    history = CONFIG.state.history
    with Engine() as engine:
        engine.source.append(events(20))
        for version, window in enumerate((history - 1, history), start=1):
            data = encode_weights(small_weights(ITEMS, window=window))
            engine.pipeline.install(data, version, {}).result(DEADLINE_S)
    said = [record.getMessage() for record in caplog.records if "computed anew for each list" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(
        f"model version 2 looks at a session's latest {history} events and state.history is {history}"
    )


def test_generations_that_are_dropped_have_their_indexes_closed():
    with Engine() as engine:
        engine.source.append(events(20))
        served = []
        for version in (1, 2, 3):
            install(engine, version)
            served.append(engine.pipeline.generation)
        assert [one.index._closed for one in served] == [True, False, False]
        engine.pipeline.roll_back().result(DEADLINE_S)
        assert [one.index._closed for one in served] == [True, False, True]
    assert served[1].index._closed


def test_a_build_says_how_far_it_is_and_what_is_named_may_be_below_what_has_served():
    done: list[float] = []
    with Engine() as engine:
        engine.source.append(events(20))
        install(engine, 3)
        data = encode_weights(small_weights(ITEMS, 2))
        build = Build(named=True, made_s=1_700_000_000.0, progress=done.append)
        engine.pipeline.installer.install(data, 2, {}, build).result(DEADLINE_S)
        assert engine.pipeline.installer.serving == 2
        assert engine.pipeline.generation.made_s == 1_700_000_000.0
    assert done[0] == 0.0 and done == sorted(done) and done[-1] <= 1.0


def test_a_model_that_is_not_wanted_any_more_is_not_built_to_its_end():
    with Engine() as engine:
        engine.source.append(events(20))
        install(engine, 1)
        data = encode_weights(small_weights(ITEMS, 2))
        build = Build(progress=lambda done: engine.pipeline.installer.give_up())
        with pytest.raises(BuildStoppedError):
            engine.pipeline.installer.install(data, 2, {}, build).result(DEADLINE_S)
        assert ask(engine).model_version == 1
        install(engine, 3)
        assert ask(engine).model_version == 3


def test_without_a_model_that_may_serve_lists_are_made_by_counting():
    with Engine() as engine:
        engine.source.append(events(20))
        for version in (1, 2):
            install(engine, version)
        served = engine.pipeline.generation
        engine.pipeline.installer.withdraw().result(DEADLINE_S)
        assert ask(engine).model_version == 0
        assert ask(engine).origin is not Origin.MODEL
        assert engine.pipeline.installer.at_rest == 0
    assert served.index._closed
