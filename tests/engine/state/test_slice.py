"""One partition: limits, redelivery, repeats and forgetting."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.slice import Slice
from engine.state.subjects import session_name, subject_key
from tests.engine.logs import HOUR_MS, Line, batch, numbered
from tests.engine.state.digests import edges_of, slice_digest


def new_slice(users: int = 64, **limits) -> Slice:
    limits = {"max_items": 64, "history": 4, "neighbors": 3, "half_lives_s": (3600,), "content_dim": 8} | limits
    return Slice(StateConfig(**limits), EventsConfig(), users)


def fold(one: Slice, lines: list[Line], position: int | None = None):
    return one.fold(batch(lines).events, lines[-1].offset + 1 if position is None else position)


def history(one: Slice, subject: str) -> list[str | None]:
    row = one.users.get(subject)
    assert row is not None
    return [edge[0] for edge in edges_of(one.graph.user_items.latest(torch.tensor([row])), 0, one.items.id_of)]


def users_of(one: Slice, item: str) -> list[str | None]:
    row = one.items.get(item)
    assert row is not None
    return [edge[0] for edge in edges_of(one.graph.item_users.latest(torch.tensor([row])), 0, one.users.id_of)]


def views(*pairs: tuple[str, str], **rest) -> list[Line]:
    return numbered([Line(user, "", item, **rest) for user, item in pairs])


def test_a_user_and_an_anonymous_session_of_the_same_name_are_two():
    assert subject_key("s", "") != subject_key("", "s")
    one = new_slice()
    fold(one, numbered([Line("s", "", "x"), Line("", "s", "y"), Line("s", "s", "z")]))
    assert history(one, "s") == ["x", "z"] and history(one, subject_key("", "s")) == ["y"]
    assert one.anonymous == {session_name("s"): one.users.get(subject_key("", "s"))}
    assert one.sessions.links(torch.tensor([0])).tolist() == [[session_name("s"), 0, 0, 0]]


def test_ids_that_differ_in_case_or_unicode_form_are_different_users_items_and_sessions():
    forms = ["e\u0301", "\u00e9", "E\u0301", "\u00c9"]
    one = new_slice()
    fold(one, numbered([Line(form, form, form) for form in forms] + [Line("", form, form) for form in forms]))
    assert len(one.users) == 8 and len(one.items) == 4 and len(one.anonymous) == 4
    assert [history(one, form) for form in forms] == [[form] for form in forms]


def test_the_longest_idle_user_makes_room_and_its_edges_are_gone():
    one = new_slice(users=2)
    folded = fold(one, views(("ann", "x"), ("bob", "x"), ("ann", "y"), ("cid", "x"), ("ann", "z")))
    assert folded.gone_users.tolist() == [1] and folded.user.tolist() == [0, 1, 0, 1, 0]
    assert list(one.users.ids()) == ["ann", "cid"] and one.evicted_users == 1
    assert history(one, "ann") == ["x", "y", "z"] and history(one, "cid") == ["x"]
    assert users_of(one, "x") == ["ann", "cid"]


def test_the_longest_idle_item_makes_room_and_is_gone_from_histories_and_successors():
    one = new_slice(max_items=2)
    folded = fold(one, views(("ann", "x"), ("bob", "x"), ("bob", "y"), ("ann", "z"), ("bob", "z")))
    assert folded.gone_items.tolist() == [0] and folded.previous.tolist() == [-1, -1, 0, -1, 1]
    assert one.items.get("x") is None and one.evicted_items == 1
    assert history(one, "ann") == ["z"] and history(one, "bob") == ["y", "z"]
    assert users_of(one, "z") == ["ann", "bob"]
    after_y = one.graph.item_next.latest(torch.tensor([one.items.get("y")]))
    assert edges_of(after_y, 0, one.items.id_of) == [("z", 0, 0, 1.0, 0)]


def test_one_row_for_each_serves_endless_new_users_and_items():
    one = new_slice(users=1, max_items=1, duplicates_window=1)
    fold(one, views(*((f"u{at}", f"i{at}") for at in range(50))))
    assert list(one.users.ids()) == ["u49"] and list(one.items.ids()) == ["i49"]
    assert (one.evicted_users, one.evicted_items, one.events_folded) == (49, 49, 50)
    assert history(one, "u49") == ["i49"] and users_of(one, "i49") == ["u49"]


@given(
    log=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=50),
    users=st.integers(1, 4),
    max_items=st.integers(1, 4),
)
def test_within_its_limits_it_knows_the_users_and_items_seen_last(log, users, max_items):
    one = new_slice(users, max_items=max_items)
    recent_users: dict[str, list] = {}  # user -> history, the longest idle first
    recent_items: dict[str, int] = {}  # item -> when it came, the longest idle first
    evicted = [0, 0]
    lines = views(*((f"u{user}", f"i{item}") for user, item in log))
    for at, line in enumerate(lines):
        fold(one, [line])
        for known, name, limit, kind in (
            (recent_users, line.user, users, 0),
            (recent_items, line.item, max_items, 1),
        ):
            if name not in known and len(known) == limit:
                del known[next(iter(known))]
                evicted[kind] += 1
        born = recent_items.pop(line.item, at)
        recent_items[line.item] = born
        past = [*recent_users.pop(line.user, []), (line.item, born)][-4:]
        recent_users[line.user] = past
        # An item that went and came back is another one: what led to it before stays gone.
        want = {user: [i for i, born in past if recent_items.get(i) == born] for user, past in recent_users.items()}
        assert {user: history(one, user) for user in recent_users} == want
    assert set(one.users.ids()) - {None} == set(recent_users)
    assert set(one.items.ids()) - {None} == set(recent_items)
    assert [one.evicted_users, one.evicted_items] == evicted


def test_a_redelivered_record_is_folded_once():
    one, once = new_slice(), new_slice()
    log = views(("ann", "x"), ("bob", "y"), ("ann", "z"), ("cid", "x"))
    fold(once, log)
    fold(one, log[:2])
    assert fold(one, log[1:3]).event.tolist() == [1]
    assert fold(one, log[:1]).event.tolist() == []
    assert fold(one, [*log[2:], *log[1:]]).event.tolist() == [1]
    assert slice_digest(one) == slice_digest(once)
    assert one.position == 4 and one.redelivered == 6 and one.duplicates == 0


def test_a_position_behind_rejected_records_is_kept_and_never_goes_back():
    one = new_slice()
    one.fold(batch([]).events, 7)
    assert one.position == 7
    assert fold(one, views(("ann", "x")), 1).event.tolist() == []
    assert one.position == 7 and one.redelivered == 1


def test_a_repeated_event_id_is_folded_once_within_the_window_and_again_behind_it():
    one = new_slice(duplicates_window=2)
    log = [Line("ann", "", item, event_id=event_id) for item, event_id in
           [("x", "1"), ("x", "1"), ("y", ""), ("z", "2"), ("x", "1"), ("w", "3"), ("v", "1")]]  # fmt: skip
    assert fold(one, numbered(log)).event.tolist() == [0, 2, 3, 5, 6]
    assert one.duplicates == 2 and history(one, "ann") == ["y", "z", "w", "v"]
    assert [key.partition("\x01")[0] for key in one.recent_ids.ordered()] == ["3", "1"]


def test_two_producers_that_count_alike_for_their_own_users_lose_nothing():
    one = new_slice(users=9)
    log = numbered(
        [Line(user, session, item, event_id=str(at)) for at in range(200)
         for user, session, item in (("ann", "s1", "x"), ("bob", "s1", "y"), ("", "s1", "z"))]
    )  # fmt: skip
    for first in range(0, len(log), 7):
        fold(one, log[first : first + 7])
    assert one.events_folded == 600 and one.duplicates == 0
    fold(one, [line._replace(offset=one.position + at) for at, line in enumerate(log[-30:])])
    assert one.events_folded == 600 and one.duplicates == 30


def test_nobody_erases_the_event_of_another_user_session_or_item_by_its_id():
    one = new_slice(users=9)
    ids = {"event_id": "guessed"}
    theirs = [
        Line("mallory", "ann", "x", **ids), Line("", "ann", "x", **ids), Line("", "s\x01", "x", **ids),
        Line("mallory", "", "", target="ann", **ids), Line("", "", "ann", target="mallory", **ids),
        Line("bob", forget=True, **ids),
    ]  # fmt: skip
    own = [Line("ann", "", "x", **ids), Line("ann", "", "", target="mallory", **ids)]
    folded = fold(one, numbered([*theirs, own[0]]))
    # Of mallory's two, the second is a repeat.
    assert one.duplicates == 1 and folded.event.tolist() == [0, 1, 2, 6]
    fold(one, [own[1]._replace(offset=one.position)])
    assert one.duplicates == 2 and history(one, "ann") == ["x"]


def test_the_ids_of_a_snapshot_that_do_not_say_whose_they_are_are_repeats_until_the_window_has_passed_them():
    one = new_slice(users=9, duplicates_window=3)
    one.recent_ids.restore(["1", "2"])
    assert (
        fold(one, numbered([Line("ann", "", "x", event_id="1"), Line("bob", "", "x", event_id="2")])).event.tolist()
        == []
    )
    log = [Line("ann", "", "x", event_id=name) for name in ("3", "4", "1", "2")]
    assert fold(one, [line._replace(offset=at) for at, line in enumerate(log, one.position)]).event.tolist() == [
        0,
        1,
        2,
        3,
    ]
    assert one.duplicates == 2 and not one.recent_ids._bare


FORGET = Line("ann", "", forget=True)
past = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", ""]),
        st.sampled_from(["s1", "s2"]),
        st.sampled_from("xyz"),
        st.just(0),
        st.integers(0, 9 * HOUR_MS),
    ).map(lambda columns: Line(*columns)),
    max_size=20,
)


@given(before=past, after=past)
def test_forgetting_leaves_nothing_of_the_user_and_all_of_the_others(before, after):
    one = new_slice()
    log = numbered([*before, FORGET, *after])
    for line in log[: len(before)]:
        fold(one, [line])
    row, held = one.users.get("ann"), slice_digest(one)
    folded = fold(one, [log[len(before)]])
    assert folded.gone_users.tolist() == ([] if row is None else [row]) and one.forgotten == (row is not None)

    left = slice_digest(one)
    for part in ("user_items", "sessions", "users_seen"):
        assert left[part] == {user: value for user, value in held[part].items() if user != "ann"}
    for part in ("item_next", "items_seen", "popularity", "landmark", "anonymous"):
        assert left[part] == held[part]
    for item, (edges, _, degree) in held["item_users"].items():
        assert left["item_users"][item][0] == [edge for edge in edges if edge[0] != "ann"]
        assert left["item_users"][item][2] == degree
    if row is not None:
        assert_no_trace(one, row)

    fold(one, log[len(before) :], len(log))  # the record comes again, then there may be new events of the user
    came_back = [line.item for line in after if line.user == "ann"]
    assert (history(one, "ann") if came_back else []) == came_back[-4:]


def assert_no_trace(one: Slice, row: int) -> None:
    """Nothing in any table belongs to a user's row."""
    tables = {name: table.data for name, (table, _) in one.tables().items()}
    width = len(tables["user_items.block"]) // len(tables["sessions"])
    assert not tables["sessions"][row].any() and not tables["users.seen"][row].any()
    assert not tables["user_items.degree"][row].any()
    assert not tables["user_items.block"][row * width : (row + 1) * width].any()
    assert not (tables["item_users.neighbor"] == row + 1).any()
    for ring in ("user_items", "item_users"):
        empty = tables[f"{ring}.neighbor"] == 0
        assert not tables[f"{ring}.edge"][empty].any()
    others = [name for name in one.users.ids() if name is not None]
    assert int((tables["user_items.neighbor"] > 0).sum()) == sum(len(history(one, name)) for name in others)
    saved = one.save(tables, one.users.ids(), one.items.ids(), one.relations.targets.ids())
    assert "ann" not in saved.users and "ann" not in saved.targets and row in saved.lists["users.free"]


def test_an_anonymous_session_is_forgotten_by_its_own_name():
    one = new_slice()
    fold(one, numbered([Line("", "s1", "x"), Line("", "s2", "x"), Line("", "s1", forget=True)]))
    assert list(one.users.ids()) == [None, subject_key("", "s2")]
    assert list(one.anonymous) == [session_name("s2")]
    assert users_of(one, "x") == [subject_key("", "s2")]


def test_forgetting_somebody_unknown_changes_nothing():
    one = new_slice()
    fold(one, views(("bob", "x")))
    held = slice_digest(one)
    fold(one, [FORGET._replace(offset=1)])
    assert slice_digest(one) == held | {"numbers": [2, *held["numbers"][1:]]}


def test_says_which_events_that_forget_it_applied():
    one = new_slice()
    log = numbered([
        Line("bob", "", "x", event_id="1"),
        Line("ann", "", "x"),
        Line("ann", forget=True, event_id="2"),
        Line("ann", forget=True, event_id="2"),  # the producer's repeat
        Line("cid", forget=True),  # unknown here, and still somebody may remember
        Line("bob", forget=True, event_id="1"),  # the id of another event
        Line("ann", "", "y"),
    ])  # fmt: skip
    folded = fold(one, log)
    assert folded.forgot.tolist() == [2, 4] and folded.event.tolist() == [0, 1, 6]
    assert fold(one, [*log[2:], FORGET._replace(offset=7)]).forgot.tolist() == [5]  # the others are delivered again
    assert fold(one, [Line("bob", "", "x", offset=8)]).forgot.tolist() == []


def test_a_forgotten_users_row_is_given_to_the_next_without_its_past():
    one = new_slice(users=2)
    log = [*views(("ann", "x"), ("bob", "x")), FORGET._replace(offset=2), Line("cid", "", "y", offset=3)]
    fold(one, log)
    assert list(one.users.ids()) == ["cid", "bob"] and one.evicted_users == 0
    assert history(one, "cid") == ["y"] and users_of(one, "x") == ["bob"]
    assert one.sessions.table.data[0, 0] == 1  # its first session


def test_a_user_of_a_million_events_and_an_item_hot_in_every_batch_keep_the_newest():
    one = new_slice(history=128, neighbors=16)
    hot = batch(numbered([Line("ann", "", "hot")] * 50_000)).events
    for turn in range(20):
        one.fold(replace(hot, offset=hot.offset + turn * len(hot)), 0)
    assert one.events_folded == 1_000_000
    assert history(one, "ann") == ["hot"] * 128 and users_of(one, "hot") == ["ann"] * 16
    fold(one, [Line("ann", "", f"i{at % 10}", offset=one.position + at) for at in range(100)])
    assert history(one, "ann") == ["hot"] * 28 + [f"i{at % 10}" for at in range(100)]
    # One user of 16 blocks, eleven items of two: what was overwritten takes no room.
    assert one.graph.user_items.blocks - 1 == 16 and one.graph.item_users.blocks - 1 == 2 + 10 * 2


def test_its_clock_is_the_latest_time_of_an_event_whatever_came_last_and_outlives_whoever_had_it():
    one = new_slice()
    assert one.newest_ms == 0
    fold(one, [Line("a", "", "x", time_ms=50, offset=0), Line("b", "", "x", time_ms=90, offset=1)])
    fold(one, [Line("a", "", "y", time_ms=70, offset=2)])
    assert one.newest_ms == 90
    fold(one, [Line("b", forget=True, offset=3)])
    assert one.newest_ms == 90
