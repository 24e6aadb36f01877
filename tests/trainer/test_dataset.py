from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.planted import decoded, replayed
from trainer.dataset import Histories, cuts
from trainer.replay import EventLog

users = st.lists(st.integers(0, 4), min_size=1, max_size=60)


def log_of(user: list[int]) -> EventLog:
    names = [f"u{u}" for u in user]
    items = [f"i{at}" for at in range(len(user))]  # every event its own item, so that rows name events
    return replayed(decoded(names, items, list(range(len(user))), [""] * len(user), [])).data().log


def before(log: EventLog, event: int) -> list[int]:
    return [at for at in range(event) if log.user[at] == log.user[event]]


@given(user=users, n=st.integers(1, 9), basket=st.integers(1, 4), data=st.data())
def test_a_question_is_a_basket_and_knows_what_its_user_did_just_before(
    user: list[int], n: int, basket: int, data: st.DataObject
) -> None:
    log = log_of(user)
    log.time_ms[:] = torch.arange(len(log)) // basket  # so many events of whomever are of one time
    first = data.draw(st.integers(0, len(log) - 1))
    last = data.draw(st.integers(first + 1, len(log)))
    histories = Histories(log)
    questions = histories.questions(first, last)
    history, targets = histories.known_to(questions, n), histories.targets_of(questions)
    begun: dict[tuple[int, int, int], list[int]] = {}
    for event in range(len(log)):
        begun.setdefault((user[event], int(log.session[event]), int(log.time_ms[event])), []).append(event)
    wanted = sorted(b for b in begun.values() if first <= b[0] < last and before(log, b[0]))
    assert questions.order[questions.cut].tolist() == [events[0] for events in wanted]
    for at, events in enumerate(wanted):
        assert sorted(row for row in targets[at].tolist() if row >= 0) == sorted(log.item[events].tolist())
        past = before(log, events[0])[-n:]
        assert history.row[at].tolist() == [-1] * (n - len(past)) + log.item[past].tolist()
        assert history.time_ms[at].tolist() == [0] * (n - len(past)) + log.time_ms[past].tolist()
        assert history.session[at].tolist() == [0] * (n - len(past)) + log.session[past].tolist()


@given(user=users, stride=st.integers(1, 6), extra=st.integers(0, 4), shifted=st.booleans(), data=st.data())
def test_windows_target_each_event_of_the_slice_once_and_see_only_what_came_before(
    user: list[int], stride: int, extra: int, shifted: bool, data: st.DataObject
) -> None:
    log = log_of(user)
    log.kind[:] = torch.arange(len(log)) % 5
    first = data.draw(st.integers(0, len(log)))
    last = data.draw(st.integers(first, len(log)))
    histories, length = Histories(log), stride + extra
    generator = torch.Generator().manual_seed(0) if shifted else None
    batch = histories.batch(histories.windows(first, last, stride, generator), length)
    event_of = {item: at for at, item in enumerate(log.item.tolist())}
    targets = []
    for b in range(len(batch.target)):
        for i in range(length):
            if batch.target[b, i] < 0:
                continue
            target = event_of[batch.target[b, i].item()]
            targets.append(target)
            assert batch.target_session[b, i] == log.session[target]
            assert batch.target_kind[b, i] == log.kind[target]
            # The input at i is the event just before the target, and all inputs up to it are older.
            inputs = [event_of[row] for row in batch.events.row[b, : i + 1].tolist() if row >= 0]
            assert inputs == before(log, target)[-len(inputs) :]
    assert sorted(targets) == [event for event in range(first, last) if before(log, event)]


@given(events=st.integers(0, 50), pieces=st.integers(1, 20))
def test_cuts_cover_the_log_once_in_order(events: int, pieces: int) -> None:
    covered = [at for first, last in cuts(events, pieces) for at in range(first, last)]
    assert covered == list(range(events))


def test_windows_of_a_long_history_are_cut_at_other_places_each_time() -> None:
    histories, generator = Histories(log_of([0] * 50)), torch.Generator().manual_seed(0)
    cut = {tuple(histories.windows(0, 50, 20, generator).last.tolist()) for _ in range(10)}
    assert len(cut) > 3


def test_a_windows_length_is_what_its_user_did_before_the_last_target() -> None:
    log = log_of([0, 1, 0, 0, 1, 0])
    histories = Histories(log)
    windows = histories.windows(0, 6, 10)
    for most in (2, 9):
        inputs = histories.batch(windows, 9).events.mask.sum(1).clamp_max(most)
        assert histories.length(windows, most).tolist() == inputs.tolist()
