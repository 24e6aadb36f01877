from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.ranking.lists import make_lists
from engine.ranking.query import Query
from engine.state.popularity import Popularity
from tests.trainer.planted import edges_of, planted_log, replayed, small_config
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.live_fold import insert
from trainer.replay import TrainingData
from trainer.start import start_weights, words
from trainer.walk import WalkPoint, empty_graph, walk

AT_ONCE, AT_ONCE_LARGE = 16, 40
QUERY = Query("", "", 10)


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.walk._AT_ONCE", AT_ONCE)
    monkeypatch.setattr("trainer.walk._AT_ONCE_LARGE", AT_ONCE_LARGE)


def forward_of(data: TrainingData, first: int) -> ItemForward:
    weights = start_weights(data, first, small_config(), None)
    return ItemForward(weights.model.eval(), words(data.item_ids, weights.vocabulary), data.content)


@pytest.mark.parametrize("large", [False, True])
def test_every_point_has_the_state_of_just_before_it(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr("trainer.walk.LARGE_TABLE", 0)
    at_once = AT_ONCE_LARGE if large else AT_ONCE
    data = replayed(planted_log(200)).data()
    log, first, last = data.log, 100, 190
    forward, histories = forward_of(data, first), Histories(log)
    questions = histories.questions(first, last)
    position, begin = questions.order[questions.cut], 0
    begun = int(position[0])
    for point in walk(forward, data, histories, questions, QUERY):
        events = position[begin : begin + len(point.asked)].tolist()
        begin += len(events)
        start = begun + (events[0] - begun) // at_once * at_once
        assert events[-1] < start + at_once
        graph, moment = empty_graph(data), point.moment
        insert(graph, log.slice(0, start))
        assert edges_of(moment.graph, data) == edges_of(graph, data)
        assert point.asked.users.tolist() == log.user[events].tolist()
        assert point.targets[:, 0].tolist() == log.item[events].tolist()
        assert moment.clock_ms == int(log.time_ms[:start].max())
        popularity = Popularity(data.state.half_lives_s, data.state.popular, data.items)
        weight = data.kind_weight[log.kind[:start].numpy()][:, None].repeat(len(data.state.half_lives_s), axis=1)
        popularity.fold(log.item[:start].numpy(), log.time_ms[:start].numpy(), weight)
        assert moment.popularity.top(20).tolist() == popularity.top(20).tolist()
        # Items that the last events touched are embedded anew.
        touched = log.item[start - at_once : start].unique() if start > begun else torch.arange(data.items)
        torch.testing.assert_close(point.model.items[touched], forward(touched, graph), atol=1e-5, rtol=0)
        for event, remembered in zip(events, point.asked.history.row, strict=True):
            past = [at for at in range(event) if log.user[at] == log.user[event]][-data.state.history :]
            assert remembered[remembered >= 0].tolist() == log.item[past].tolist()
        assert point.done == begin / len(questions)
    assert begin == len(questions)


def candidates(data: TrainingData, point: WalkPoint) -> set[int]:
    rows = make_lists(point.asked, point.moment, point.model, data.ranking).weighed.listable.row
    return set(rows[rows >= 0].tolist())


def first_of(data: TrainingData) -> WalkPoint:
    histories = Histories(data.log)
    return next(walk(forward_of(data, 100), data, histories, histories.questions(100, 190), QUERY))


def test_an_item_that_may_not_be_shown_at_that_time_is_no_candidate() -> None:
    data = replayed(planted_log(200)).data()
    point = first_of(data)
    everything, now_ms = candidates(data, point), point.moment.clock_ms
    gone, over, still, coming = sorted(everything)[:4]
    deleted, until_ms, from_ms = data.deleted.copy(), data.until_ms.copy(), data.from_ms.copy()
    deleted[gone], until_ms[over], until_ms[still], from_ms[coming] = True, now_ms, now_ms + 1, now_ms + 1
    later = replace(data, deleted=deleted, until_ms=until_ms, from_ms=from_ms)
    left = candidates(later, first_of(later))
    assert not {gone, over, coming} & left and still in left
