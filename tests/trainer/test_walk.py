from __future__ import annotations

import pytest
import torch

from engine.state.popularity import Popularity
from tests.trainer.planted import edges_of, planted_log, replayed, small_config
from trainer.dataset import Histories
from trainer.forward import ItemForward
from trainer.live_fold import insert
from trainer.train import start_weights, words
from trainer.walk import empty_graph, make_lists, walk

AT_ONCE = 16


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.walk._AT_ONCE", AT_ONCE)


def test_every_moment_has_the_state_of_just_before_it() -> None:
    data = replayed(planted_log(200)).data()
    log, first, last = data.log, 100, 190
    weights = start_weights(data, first, small_config(), None)
    forward = ItemForward(weights.model.eval(), words(data.item_ids, weights.vocabulary), data.content)
    seen: list[int] = []
    for moment in walk(forward, data, Histories(log), first, last, samples=10**9, seed=0):
        start = first + (int(moment.events[0]) - first) // AT_ONCE * AT_ONCE
        seen += moment.events.tolist()
        graph = empty_graph(data)
        insert(graph, log.slice(0, start))
        assert edges_of(moment.graph, data) == edges_of(graph, data)
        assert torch.equal(moment.users, log.user[moment.events])
        assert moment.now_ms.tolist() == [int(log.time_ms[:start].max())] * len(moment.users)
        for half_life_s, moments in zip(data.state.half_lives_s, moment.popularity, strict=True):
            popularity = Popularity(half_life_s, data.state.popular, data.items)
            popularity.fold(
                log.item[:start].numpy(), log.time_ms[:start].numpy(), data.kind_weight[log.kind[:start].numpy()]
            )
            assert moments.top(20).tolist() == popularity.top(20).tolist()
        # Items that the last events touched are embedded anew.
        touched = log.item[start - AT_ONCE : start].unique() if start > first else torch.arange(data.items)
        torch.testing.assert_close(moment.table[touched], forward(touched, graph), atol=1e-5, rtol=0)
        for event, history in zip(moment.events.tolist(), moment.history.row, strict=True):
            past = [at for at in range(event) if log.user[at] == log.user[event]][-data.state.history :]
            assert history[history >= 0].tolist() == log.item[past].tolist()
    new_users = [at for at in range(first, last) if log.user[at] not in log.user[:at]]
    assert sorted(seen + new_users) == list(range(first, last))


def test_a_deleted_item_is_no_candidate() -> None:
    data = replayed(planted_log(200)).data()
    weights = start_weights(data, 100, small_config(), None)
    forward = ItemForward(weights.model.eval(), words(data.item_ids, weights.vocabulary), data.content)
    moment = next(walk(forward, data, Histories(data.log), 100, 190, samples=10**9, seed=0))
    deleted = torch.zeros(data.items, dtype=torch.bool)
    everything = make_lists(forward, moment, deleted, small_config()).item
    gone = everything[0, :3]
    deleted[gone] = True
    left = make_lists(forward, moment, deleted, small_config()).item
    assert not torch.isin(left, gone).any()
    assert torch.isin(everything, gone).any()
