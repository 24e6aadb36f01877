from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import StateConfig
from engine.events.batch import CatalogItem
from engine.state.state import State, subject_key
from tests.engine import logs
from tests.engine.logs import Line
from tests.trainer.planted import KINDS, decoded, replayed
from trainer.replay import Replay

GAP_MS = 1800 * 1000
LIMIT = 10


def replay_of(max_log_events: int = 100, partitions: int = 1, **state: int) -> Replay:
    return Replay(StateConfig.model_validate(state), KINDS, max_log_events, partitions=partitions)


def test_columns_say_what_was_folded() -> None:
    batch = decoded(["a", "b", "a", "a"], ["x", "y", "y", "x"], [10, 20, 30, 40], ["1", "7", "1", "2"], [])
    data = replayed(batch).data()
    log = data.log
    assert [data.item_ids[row] for row in log.item] == ["x", "y", "y", "x"]
    assert log.user.tolist() == [0, 1, 0, 0]
    assert log.time_ms.tolist() == [10, 20, 30, 40]
    assert log.session.tolist() == [1, 1, 1, 2]
    assert log.previous.tolist() == [-1, -1, 0, -1]


def test_keeps_the_newest_events_within_its_bound() -> None:
    replay = replay_of(max_log_events=10)
    for start in range(0, 95, 7):
        times = list(range(start, min(95, start + 7)))
        events = len(times)
        replay.fold(decoded(["u"] * events, [f"i{t}" for t in times], times, [""] * events, [], first_offset=start))
        data = replay.data()
        assert data.log.time_ms.tolist() == list(range(max(0, times[-1] - 9), times[-1] + 1))
        assert [data.item_ids[item] for item in data.log.item] == [f"i{t}" for t in data.log.time_ms.tolist()]
        assert data.items == len(replay) == len(data.log)
        # What came before lies outside the log, so the first has nothing before it.
        assert data.log.previous.tolist() == [-1, *data.log.item[:-1].tolist()]


def test_a_batch_above_the_bound_leaves_its_newest() -> None:
    replay = replay_of(max_log_events=10)
    replay.fold(decoded(["u"] * 100, ["i"] * 100, list(range(100)), [""] * 100, []))
    assert replay.data().log.time_ms.tolist() == list(range(90, 100))


def test_data_is_in_order_of_time_though_partitions_come_one_after_another() -> None:
    replay = replay_of(partitions=2)
    replay.fold(decoded(["a", "a"], ["x", "y"], [10, 30], ["", ""], []))
    replay.fold(decoded(["b", "b"], ["x", "y"], [20, 30], ["", ""], [], partition=1))
    log = replay.data().log
    assert log.time_ms.tolist() == [10, 20, 30, 30]
    assert log.user.tolist() == [0, 1, 0, 1]
    assert log.previous.tolist() == [-1, -1, 0, 0]


def test_of_equal_times_the_higher_partition_is_later_whichever_was_read_first() -> None:
    orders = []
    for partitions in ((0, 1), (1, 0)):
        replay = replay_of(partitions=2)
        for partition in partitions:
            replay.fold(
                decoded([f"u{partition}"] * 2, [f"a{partition}", f"b{partition}"], [5, 5], [""] * 2, [],
                        partition=partition)
            )  # fmt: skip
        data = replay.data()
        orders.append([data.item_ids[item] for item in data.log.item])
    assert orders == [["a0", "b0", "a1", "b1"]] * 2


def test_one_user_in_two_partitions_is_one_user_with_sessions_in_each() -> None:
    replay = replay_of(partitions=2)
    for offset, (first, second) in enumerate(("ac", "bd")):  # as they are polled, turn by turn
        replay.fold(decoded(["u"], [first], [10 + 20 * offset], ["s"], [], first_offset=offset))
        replay.fold(decoded(["u"], [second], [20 + 20 * offset], ["t"], [], first_offset=offset, partition=1))
    data = replay.data()
    assert (data.users, data.log.user.tolist()) == (1, [0, 0, 0, 0])
    assert [data.item_ids[item] for item in data.log.item] == ["a", "c", "b", "d"]
    assert data.log.previous.tolist() == [-1, -1, data.log.item[0], data.log.item[1]]


def test_later_events_leave_data_untouched() -> None:
    replay = replay_of()
    replay.fold(decoded(["a"], ["x"], [10], [""], []))
    data = replay.data()
    replay.fold(decoded(["b", "c"], ["y", "z"], [20, 30], ["", ""], [], first_offset=1))
    assert data.log.item.tolist() == [0]
    assert (data.items, data.users, len(data.content)) == (1, 1, 1)


def test_items_are_those_of_the_catalog_and_of_the_log() -> None:
    items = [CatalogItem("a", title="red"), CatalogItem("b", deleted=True)]
    data = replayed(decoded(["u", "u"], ["c", "a"], [1, 2], ["", ""], items)).data()
    assert data.item_ids == ["a", "b", "c"]
    assert data.log.item.tolist() == [2, 0]
    assert data.deleted.tolist() == [False, True, False]
    assert [bool(content.any()) for content in data.content] == [True, False, False]


def test_an_item_that_the_state_has_evicted_is_learned_from_and_not_recommended() -> None:
    replay = replay_of(max_items=2)
    replay.fold(decoded(["u"] * 3, ["a", "b", "c"], [1, 2, 3], [""] * 3, []))
    data = replay.data()
    assert [data.item_ids[item] for item in data.log.item] == ["a", "b", "c"]
    assert data.log.previous.tolist() == [-1, 0, 1]
    assert data.deleted.tolist() == [True, False, False]


def test_what_was_sent_or_delivered_twice_is_learned_once() -> None:
    replay = replay_of()
    first = decoded(["u", "u"], ["a", "b"], [1, 2], ["", ""], [], event_id=["1", "2"])
    assert replay.fold(first) == 2
    assert replay.fold(first) == 0
    assert replay.fold(decoded(["u", "u"], ["b", "c"], [2, 3], [""] * 2, [], first_offset=2, event_id=["2", "3"])) == 1
    assert replay.data().log.time_ms.tolist() == [1, 2, 3]


def test_a_forgotten_user_leaves_at_once_and_may_come_back() -> None:
    replay = replay_of()
    replay.fold(decoded(["u", "v", "u"], ["a", "b", "c"], [1, 2, 3], ["s"] * 3, []))
    # u once more, forgotten, and back in the same session, all in one batch.
    batch = decoded(
        ["u", "v", "u", "u"], ["d", "e", "", "f"], [4, 5, 6, 7], ["s"] * 4, [], first_offset=3, forget=[2]
    )  # fmt: skip
    assert replay.fold(batch) == 3
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


def test_a_forget_record_with_the_event_id_of_an_earlier_event_is_not_applied() -> None:
    replay = replay_of()
    lines = [
        Line("bob", "", "x", time_ms=1, event_id="1"),
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
        seen: set[str] = set()
        for line in part:
            if not line.event_id or line.event_id not in seen:
                place = subject_key(line.user, line.session), line.partition
                expected[place] = [] if line.forget else [*expected.get(place, []), (line.item, line.time_ms)]
            seen.add(line.event_id)
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


@dataclass(frozen=True)
class Happening:
    """An event, or with `forget` a record that forgets its subject."""

    user: str
    session: str
    item: str
    pause_ms: int
    event_id: str
    forget: bool
    partition: int


def happening(who: tuple[str, str], item: str, pause_ms: int, event_id: str, forget: bool, partition: int) -> Happening:
    return Happening(*who, item, pause_ms, event_id, forget, partition)


happenings = st.builds(
    happening,
    who=st.sampled_from([("u", ""), ("u", "s"), ("v", ""), ("w", "s"), ("", "u"), ("", "s")]),
    item=st.sampled_from("abcd"),
    pause_ms=st.sampled_from([1, GAP_MS, GAP_MS + 1]),
    event_id=st.sampled_from(["", "", "", "1", "2"]),
    forget=st.sampled_from([False] * 6 + [True]),
    partition=st.integers(0, 1),
)

Expected = tuple[str, str, int, int, str | None]  # subject, item, time, session, item before


def subject_of(event: Happening) -> str:
    return event.user or "session " + event.session


def told(kept: Sequence[tuple[Happening, int]]) -> list[Expected]:
    """Sessions and the item before, the plain way: each event against the one before of the same user and partition."""
    last: dict[tuple[str, int], tuple[Happening, int, int]] = {}
    found: list[Expected] = []
    for event, time_ms in kept:
        subject = subject_of(event)
        before = last.get((subject, event.partition))
        session, previous = 1, None
        if before is not None:
            old, old_ms, session = before
            starts = old.session != event.session or (not event.session and time_ms - old_ms > GAP_MS)
            session, previous = (session + 1, None) if starts else (session, old.item)
        last[subject, event.partition] = event, time_ms, session
        found.append((subject, event.item, time_ms, session, previous))
    return found


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(happenings, max_size=12), max_size=8))
def test_the_store_is_the_log_without_repeats_and_the_forgotten_however_small_the_state(
    batches: list[list[Happening]],
) -> None:
    replay = replay_of(LIMIT, partitions=2, max_users=2, max_items=2, session_gap_s=GAP_MS // 1000)
    seen: set[tuple[int, str]] = set()
    live: list[tuple[Happening, int]] = []
    arrived: list[int] = []
    offsets, time_ms = [0, 0], 0
    for batch in batches:
        for partition in (0, 1):
            part = [h for h in batch if h.partition == partition]
            times = []
            for h in part:
                time_ms += h.pause_ms
                times.append(time_ms)
                if h.event_id and (partition, h.event_id) in seen:
                    continue
                seen.add((partition, h.event_id))
                if h.forget:
                    live = [
                        (old, t) for old, t in live if (subject_of(old), old.partition) != (subject_of(h), partition)
                    ]
                else:
                    live.append((h, time_ms))
                    arrived.append(time_ms)
            replay.fold(
                decoded(
                    [h.user for h in part], [h.item for h in part], times, [h.session for h in part], [],
                    first_offset=offsets[partition], partition=partition, event_id=[h.event_id for h in part],
                    forget=[at for at, h in enumerate(part) if h.forget],
                )
            )  # fmt: skip
            offsets[partition] += len(part)

            data = replay.data()
            kept = live[-len(replay) :] if len(replay) else []
            assert sum(t in arrived[-LIMIT:] for _, t in live) <= len(replay) <= LIMIT
            expected = told(kept)
            log = data.log
            columns = (log.item, log.time_ms, log.session, log.previous)
            assert [
                (data.item_ids[item], time, session, data.item_ids[previous] if previous >= 0 else None)
                for item, time, session, previous in zip(*map(list, (c.tolist() for c in columns)), strict=True)
            ] == [row[1:] for row in expected]
            pairs = set(zip(log.user.tolist(), (row[0] for row in expected), strict=True))
            assert len(pairs) == data.users == len({number for number, _ in pairs}) == len({name for _, name in pairs})


def test_relations_are_folded_as_the_engine_does_and_are_nothing_to_train_from() -> None:
    lines = [
        Line("a", "s", "x", time_ms=1),
        Line("a", target="b", time_ms=2),
        Line(item="z", target="brand", time_ms=3),
        Line("b", "s", "y", time_ms=4),
    ]
    replay = replay_of()
    assert replay.fold(logs.batch(logs.numbered(lines))) == 2
    data = replay.data()
    assert [data.item_ids[row] for row in data.log.item] == ["x", "y"] and data.users == 2
    assert replay.state.events_folded == 4 and replay.state.relations
    friend = replay.state.relations.friends("a").tolist()
    assert friend == replay.state.find_users(["b"])
