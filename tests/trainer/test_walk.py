from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.ranking.query import Query
from engine.state.popularity import Popularity
from tests.trainer.planted import edges_of, planted_log, replayed, small_config
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.live_fold import insert
from trainer.replay import TrainingData
from trainer.train import start_weights, words
from trainer.walk import empty_graph, lists_of, walk

AT_ONCE = 16
QUERY = Query("", "", 10)


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.walk._AT_ONCE", AT_ONCE)


def test_every_moment_has_the_state_of_just_before_it() -> None:
    data = replayed(planted_log(200)).data()
    log, first, last = data.log, 100, 190
    weights = start_weights(data, first, small_config(), None)
    forward = ItemForward(weights.model.eval(), words(data.item_ids, weights.vocabulary), data.content)
    seen: list[int] = []
    for point in walk(forward, data, Histories(log), first, last, 10**9, 0, QUERY):
        moment, history = point.moment, point.asked.history
        start = first + (int(point.events[0]) - first) // AT_ONCE * AT_ONCE
        seen += point.events.tolist()
        graph = empty_graph(data)
        insert(graph, log.slice(0, start))
        assert edges_of(moment.graph, data) == edges_of(graph, data)
        assert point.asked.users.tolist() == log.user[point.events].tolist()
        assert moment.clock_ms == int(log.time_ms[:start].max())
        popularity = Popularity(data.state.half_lives_s, data.state.popular, data.items)
        weight = data.kind_weight[log.kind[:start].numpy()][:, None].repeat(len(data.state.half_lives_s), axis=1)
        popularity.fold(log.item[:start].numpy(), log.time_ms[:start].numpy(), weight)
        assert moment.popularity.top(20).tolist() == popularity.top(20).tolist()
        # Items that the last events touched are embedded anew.
        touched = log.item[start - AT_ONCE : start].unique() if start > first else torch.arange(data.items)
        torch.testing.assert_close(point.model.items[touched], forward(touched, graph), atol=1e-5, rtol=0)
        for event, remembered in zip(point.events.tolist(), history.row, strict=True):
            past = [at for at in range(event) if log.user[at] == log.user[event]][-data.state.history :]
            assert remembered[remembered >= 0].tolist() == log.item[past].tolist()
    new_users = [at for at in range(first, last) if log.user[at] not in log.user[:at]]
    assert sorted(seen + new_users) == list(range(first, last))


def test_a_deleted_item_is_no_candidate() -> None:
    data = replayed(planted_log(200)).data()
    weights = start_weights(data, 100, small_config(), None)
    forward = ItemForward(weights.model.eval(), words(data.item_ids, weights.vocabulary), data.content)

    def candidates(data: TrainingData) -> torch.Tensor:
        point = next(walk(forward, data, Histories(data.log), 100, 190, 10**9, 0, QUERY))
        return lists_of(point.asked, point.moment, point.model, data.ranking).item

    everything = candidates(data)
    gone = everything[0, :3]
    deleted = data.deleted.copy()
    deleted[gone] = True
    left = candidates(replace(data, deleted=deleted))
    assert not torch.isin(left, gone).any()
    assert torch.isin(everything, gone).any()
