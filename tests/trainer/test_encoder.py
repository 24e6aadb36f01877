from __future__ import annotations

import torch

from tests.trainer.planted import edges_of, planted_log, replayed, small_config
from trainer.dataset import Histories
from trainer.encoder import Schedule
from trainer.live_fold import insert
from trainer.order import linked_order
from trainer.walk import empty_graph


def test_the_graph_of_a_piece_holds_exactly_the_events_before_it() -> None:
    data = replayed(planted_log(300)).data()
    histories, config = Histories(data.log), small_config(chunks=4, batch=8)
    batches = linked_order(data, histories, 200, config, torch.Generator().manual_seed(0))
    seen: list[int] = []
    while len(seen) < 200 - len(data.log.user[:200].unique()):  # a user's first event is no target
        graph, windows = next(batches)
        first = int(windows.last.min()) // 50 * 50  # pieces of 50 events
        expected = empty_graph(data)
        insert(expected, data.log.slice(0, first))
        assert graph is not None
        assert edges_of(graph, data) == edges_of(expected, data)
        batch = histories.batch(windows, config.window)
        for window, target in zip(windows.last.tolist(), batch.target, strict=True):
            assert first <= window < first + 50
            seen += [window] * int((target >= 0).sum())
    assert len(seen) == 200 - len(data.log.user[:200].unique())


def test_a_planted_later_event_is_not_in_the_graph() -> None:
    log = planted_log(300)
    data = replayed(log).data()
    planted = int(data.log.item[250])
    data.log.item[data.log.item == planted] = (planted + 1) % data.items
    data.log.item[250] = planted  # its only event, in the last of three pieces
    config = small_config(chunks=3, batch=1000)
    batches = linked_order(data, Histories(data.log), 300, config, torch.Generator())
    for _ in range(3):
        graph, _windows = next(batches)
        assert graph is not None and not graph.item_users.latest(torch.tensor([planted])).mask.any()


def test_schedule_by_steps_goes_from_zero_to_one_and_ends_low() -> None:
    schedule = Schedule(budget_s=1e-9, max_steps=10)
    seen = []
    for step in range(11):
        schedule.step = step
        seen.append((schedule.progress(), schedule.rate()))
    assert [progress for progress, _ in seen] == [step / 10 for step in range(11)]
    assert max(rate for _, rate in seen) <= 1.0
    assert seen[-1][1] < 0.02 < seen[1][1]


def test_schedule_by_time_ends_when_the_budget_does() -> None:
    assert Schedule(budget_s=1e-9, max_steps=None).progress() == 1.0
    assert Schedule(budget_s=1e9, max_steps=None, begin=0.6).progress() >= 0.6
