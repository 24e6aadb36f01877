from __future__ import annotations

import torch

from tests.trainer.planted import edges_of, planted_log, replayed, small_config
from trainer.dataset import Histories
from trainer.live_fold import insert
from trainer.order import linked_order
from trainer.schedule import Schedule, cosine_rate
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


def test_schedule_by_steps_goes_from_zero_to_one_and_rises_to_the_whole_rate() -> None:
    schedule, seen = Schedule(100), []
    for step in range(101):
        schedule.step = step
        seen.append((schedule.progress(), schedule.rate()))
    assert [progress for progress, _ in seen] == [step / 100 for step in range(101)]
    assert [rate for _, rate in seen] == [min(1.0, (step + 1) / 5) for step in range(101)]
    assert schedule.is_whole()


def test_schedule_by_time_ends_when_the_budget_does_and_goes_on_with_more() -> None:
    schedule = Schedule(None, budget_s=1e-9)
    assert schedule.progress() == 0.0  # one step is always taken, however long the start was
    schedule.step = 1
    assert schedule.progress() == 1.0 and not schedule.is_whole()
    schedule.budget_s = 1e9
    assert schedule.progress() < 1e-3


def test_a_cosine_rises_shortly_and_ends_low() -> None:
    rates = [cosine_rate(at / 100) for at in range(101)]
    assert rates[0] < 0.1 and max(rates) <= 1.0 and rates[5] > 0.9
    assert rates[-1] < 0.02 and rates[10:] == sorted(rates[10:], reverse=True)
