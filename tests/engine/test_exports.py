"""Questions for what is held of somebody: bounded, paced, and taken back by those who leave."""

from __future__ import annotations

import pytest

from engine.config import Config, ServingConfig
from engine.exports import Exports
from engine.pace import Allowance
from engine.waiting import NotFollowing, Overloaded
from tests.engine.test_pipeline import DEADLINE_S, Engine, events
from tests.engine.worlds import small_config, small_state

CONFIG = small_config()


def test_more_than_the_limit_are_refused_until_one_is_answered_or_leaves():
    exports, state = Exports(2), small_state(CONFIG)
    first, second = exports.ask("u1"), exports.ask("u2")
    with pytest.raises(Overloaded, match="at most 2 calls"):
        exports.ask("u3")
    first.cancel()
    third = exports.ask("u3")
    assert len(exports) == 2
    exports.answer(state)
    assert [len(answer.result(0)) for answer in (second, third)] == [1, 1]
    assert len(exports) == 0


def test_they_take_their_share_of_the_time_however_many_wait(monkeypatch):
    worked_s, now_s = [0.0], [0.0]

    def export(state, subject):
        worked_s[0] += 0.01
        return ()

    monkeypatch.setattr("engine.exports.export_subject", export)
    monkeypatch.setattr("engine.exports.time.thread_time", lambda: worked_s[0])
    exports, state = Exports(1000), small_state(CONFIG)
    exports._time = Allowance(0.2, 0.02, 0.0, lambda: now_s[0])
    answers = [exports.ask(f"u{at}") for at in range(1000)]
    for _ in range(100):  # a second
        now_s[0] += 0.01
        exports.answer(state)
    assert sum(answer.done() for answer in answers) in range(20, 25)


def test_an_export_that_fails_fails_alone(monkeypatch):
    exports, state = Exports(10), small_state(CONFIG)
    answers = [exports.ask(subject) for subject in ("u1", "u2")]
    real = exports.answer.__globals__["export_subject"]
    monkeypatch.setattr(
        "engine.exports.export_subject", lambda state, subject: real(None if subject == "u1" else state, subject)
    )
    exports.answer(state)
    assert answers[0].exception(0) is not None and len(answers[1].result(0)) == 1


def test_those_who_wait_when_the_engine_stops_are_told():
    exports = Exports(10)
    answer = exports.ask("u1")
    exports.close()
    with pytest.raises(NotFollowing, match="stopping"):
        answer.result(0)


def test_the_engine_answers_more_than_may_wait_to_those_who_ask_one_after_the_other():
    config = Config(**dict(CONFIG) | {"serving": ServingConfig(max_exports=1)})
    with Engine(config=config) as engine:
        engine.source.append(events(3, "u1"))
        while not engine.pipeline.export("u1").result(DEADLINE_S):
            pass
        for _ in range(20):
            (held,) = engine.pipeline.export("u1").result(DEADLINE_S)
            assert [event.item_id for event in held.history] == ["i00", "i01", "i02"]
