"""Who is forgotten leaves the trainer's store as it leaves the engine's state, however partitions are read."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import StateConfig
from engine.state.state import State
from engine.state.subjects import subject_key
from tests.engine import logs
from tests.engine.logs import Line
from tests.trainer.planted import KINDS, decoded
from trainer.replay import Replay


def replay_of(partitions: int = 1, **state: int) -> Replay:
    return Replay(StateConfig.model_validate(state), KINDS, 100, partitions=partitions)


def test_a_forgotten_user_leaves_at_once_and_may_come_back() -> None:
    replay = replay_of()
    replay.fold(decoded(["u", "v", "u"], ["a", "b", "c"], [1, 2, 3], ["s"] * 3, []))
    # u once more, forgotten, and back in the same session, all in one batch.
    batch = decoded(
        ["u", "v", "u", "u"], ["d", "e", "", "f"], [4, 5, 6, 7], ["s"] * 4, [], first_offset=3, forget=[2]
    )  # fmt: skip
    assert len(replay.fold(batch).event) == 3
    data = replay.data()
    assert len(replay) == len(data.log) == 3
    assert [data.item_ids[item] for item in data.log.item] == ["b", "e", "f"]
    assert sorted(data.item_ids) == ["b", "e", "f"]  # nor is what only u touched known any more
    assert data.users == 2
    assert data.log.user[0] == data.log.user[1] != data.log.user[2]
    assert data.log.previous.tolist() == [-1, data.log.item[0], -1]


def test_a_forgotten_number_is_another_users_afterwards_without_a_trace() -> None:
    replay = replay_of()
    replay.fold(decoded(["u", "u"], ["a", ""], [1, 2], [""] * 2, [], forget=[1]))
    replay.fold(decoded(["v"], ["b"], [3], [""], [], first_offset=2))
    data = replay.data()
    assert (data.item_ids, data.log.user.tolist(), data.log.time_ms.tolist()) == (["b"], [0], [3])


def test_an_anonymous_session_is_forgotten_and_not_the_user_of_that_name() -> None:
    replay = replay_of()
    replay.fold(decoded(["", "x", ""], ["a", "b", "c"], [1, 2, 3], ["x", "x", "y"], []))
    replay.fold(decoded([""], [""], [4], ["x"], [], first_offset=3, forget=[0]))
    data = replay.data()
    assert [data.item_ids[item] for item in data.log.item] == ["b", "c"]


def test_a_user_that_the_state_has_evicted_stays_until_forgotten() -> None:
    replay = replay_of(max_users=2)
    users = ["u", "v", "w", "x"]
    replay.fold(decoded(users, ["a", "b", "c", "d"], [1, 2, 3, 4], [""] * 4, []))
    assert replay.state.find_users(["u"]) == [-1]
    assert replay.data().log.user.tolist() == [0, 1, 2, 3]
    replay.fold(decoded(["u"], [""], [5], [""], [], first_offset=4, forget=[0]))
    assert replay.data().log.time_ms.tolist() == [2, 3, 4]


def test_a_forget_record_delivered_again_leaves_what_came_after_it() -> None:
    replay = replay_of()
    forget = decoded(["u", "u"], ["a", ""], [1, 2], [""] * 2, [], forget=[1])
    replay.fold(forget)
    replay.fold(decoded(["u"], ["b"], [3], [""], [], first_offset=2))
    replay.fold(forget)
    assert replay.data().log.time_ms.tolist() == [3]


@pytest.mark.parametrize("order", [[(0, 2), (2, 6)], [(2, 6), (0, 2)], [(2, 4), (0, 2), (4, 6)], [(0, 6)]])
def test_who_comes_back_stays_whichever_partition_is_read_first(order: list[tuple[int, int]]) -> None:
    lines = logs.numbered([
        Line("bob", "", "x", time_ms=1),
        Line("ann", forget=True, time_ms=2, event_id="f"),
        Line("ann", "", "x", time_ms=1, partition=1),
        Line("ann", forget=True, time_ms=2, partition=1, event_id="f"),
        Line("ann", "", "y", time_ms=3, partition=1),
        Line("ann", "", "z", time_ms=4, partition=1),
    ])  # fmt: skip
    replay = replay_of(partitions=2)
    for first, last in order:
        replay.fold(logs.batch(lines[first:last]))
    data = replay.data()
    assert [data.item_ids[item] for item in data.log.item] == ["x", "y", "z"]
    assert data.log.user.tolist() in ([0, 1, 1], [1, 0, 0])
    assert sorted(held(replay.state)) == [("ann", 1, ["y", "z"]), ("bob", 0, ["x"])]


def test_a_forget_record_with_the_event_id_of_an_earlier_event_of_the_user_is_not_applied() -> None:
    replay = replay_of()
    lines = [
        Line("ann", "", "x", time_ms=1, event_id="1"),
        Line("ann", "", "x", time_ms=2, event_id="2"),
        Line("ann", forget=True, time_ms=3, event_id="1"),
    ]
    replay.fold(logs.batch(logs.numbered(lines)))
    assert replay.data().log.time_ms.tolist() == [1, 2]


def test_a_forget_record_that_its_producer_repeats_leaves_who_came_back() -> None:
    replay = replay_of()
    forget = Line("ann", forget=True, time_ms=2, event_id="f")
    lines = [Line("ann", "", "x", time_ms=1), forget, Line("ann", "", "y", time_ms=3), forget]
    for line in logs.numbered(lines):
        replay.fold(logs.batch([line]))
    assert replay.data().log.time_ms.tolist() == [3]


def held(state: State) -> list[tuple[str, int, list[str]]]:
    """Subject, partition and history of all that the engine's state holds history of."""
    found = []
    for row in state.users().tolist():
        partition, home, local = state.home_of(row)
        items = state.graph.user_items.latest(torch.tensor([row])).row[0]
        history = [state.items.id_of(item) for item in items[items >= 0].tolist()]
        if history:
            found.append((str(home.slice.users.id_of(local)), partition, history))
    return found


happened = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["u", "v", "s", ""]),
        "session": st.sampled_from(["s", "t"]),
        "item": st.sampled_from("abc"),
        "event_id": st.sampled_from(["", "", "", "1", "2", "3"]),
        "partition": st.integers(0, 2),
        "forget": st.sampled_from([False] * 3 + [True]),
    }
).map(lambda named: Line()._replace(**named))  # type: ignore[arg-type]
# Per batch: for each partition, how many records are new, and how many of those before come once more.
polls = st.lists(st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 3))] * 3), max_size=8)


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(happened, max_size=30), polls=polls, first=st.permutations(range(3)))
def test_store_and_state_hold_what_each_partition_says_by_itself_however_they_are_interleaved(
    lines: list[Line], polls: list[tuple[tuple[int, int], ...]], first: list[int]
) -> None:
    log = [line._replace(item="" if line.forget else line.item, time_ms=at) for at, line in enumerate(lines)]
    log = logs.numbered(log)
    parts = [[line for line in log if line.partition == partition] for partition in range(3)]

    expected: dict[tuple[str, int], list[tuple[str, int]]] = {}  # by subject and partition: item and time
    for part in parts:
        seen: set[tuple[str, str]] = set()
        for line in part:
            subject = subject_key(line.user, line.session)
            if not line.event_id or (subject, line.event_id) not in seen:
                place = subject, line.partition
                expected[place] = [] if line.forget else [*expected.get(place, []), (line.item, line.time_ms)]
            seen.add((subject, line.event_id))
    expected = {place: events for place, events in expected.items() if events}

    replay = replay_of(partitions=3)
    ends = [0, 0, 0]
    for poll in [*polls, ((len(log), 2),) * 3]:
        batch = []
        for partition in first:
            new, again = poll[partition]
            batch += parts[partition][max(0, ends[partition] - again) : ends[partition] + new]
            ends[partition] = min(ends[partition] + new, len(parts[partition]))
        if batch:
            replay.fold(logs.batch(batch))

    data = replay.data()
    stored = list(zip(*(column.tolist() for column in (data.log.user, data.log.item, data.log.time_ms)), strict=True))
    assert sorted((data.item_ids[item], time) for _, item, time in stored) == sorted(chain(*expected.values()))
    subject_at = {line.time_ms: subject_key(line.user, line.session) for line in log}
    pairs = {(user, subject_at[time]) for user, _, time in stored}
    assert len(pairs) == data.users == len({subject for subject, _ in expected})
    histories = {(subject, partition): history for subject, partition, history in held(replay.state)}
    assert histories == {place: [item for item, _ in events] for place, events in expected.items()}
