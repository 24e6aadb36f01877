from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import StateConfig
from engine.events.batch import CatalogItem
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
    assert len(replay.fold(first).event) == 2
    assert len(replay.fold(first).event) == 0
    assert (
        len(
            replay.fold(
                decoded(["u", "u"], ["b", "c"], [2, 3], [""] * 2, [], first_offset=2, event_id=["2", "3"])
            ).event
        )
        == 1
    )
    assert replay.data().log.time_ms.tolist() == [1, 2, 3]


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
    seen: set[tuple[object, ...]] = set()
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
                key = partition, subject_of(h), h.event_id
                if h.event_id and key in seen:
                    continue
                seen.add(key)
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
    assert len(replay.fold(logs.batch(logs.numbered(lines))).event) == 2
    data = replay.data()
    assert [data.item_ids[row] for row in data.log.item] == ["x", "y"] and data.users == 2
    assert replay.state.events_folded == 4 and replay.state.relations
    friend = replay.state.relations.friends("a").tolist()
    assert friend == replay.state.find_users(["b"])
