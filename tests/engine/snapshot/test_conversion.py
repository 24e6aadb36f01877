"""A slice that was saved under some settings is, under others, what the fold would have made of the log under these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EventsConfig, KafkaConfig, StateConfig
from engine.snapshot.checks import check_slice
from engine.snapshot.conversion import converted
from engine.snapshot.settings import Fingerprint, fingerprint
from engine.state.digest import slice_digest
from engine.state.slice import SavedSlice, Slice
from engine.state.subjects import session_names
from tests.engine.logs import HOUR_MS, Line, batch, numbered
from tests.engine.snapshot.saved import save

# Room for all that the logs below name.
BASE = StateConfig(max_users=16, max_items=16, max_targets=16, duplicates_window=64, half_lives_s=(3600, 600))
EVENTS = EventsConfig(kinds={"view": 1.0, "cart": 2.0, "like": 3.0}, relations={"follows": 1.0, "has": 1.0},
                      default_user_relation="follows", default_item_relation="has")  # fmt: skip
OTHER_ORDER = EVENTS.model_copy(
    update={"kinds": {"new": 1.0, "like": 3.0, "view": 1.0, "cart": 2.0}, "relations": {"has": 1.0, "follows": 1.0}}
)
sizes = st.fixed_dictionaries(
    {"history": st.integers(2, 20), "neighbors": st.integers(1, 20), "relations": st.integers(1, 9)}
)


def _line(number: int) -> Line:
    """One of some hundred lines, by few users and about few items."""
    sort, who, what, rest = number % 8, number // 8 % 3, number // 24 % 5, number // 120
    user, item, session = ("", "ann", "bob")[who], "vwxyz"[what], ("s1", "s2")[rest % 2]
    if sort == 0:
        return Line(user or "ann", target="abcdefghijk"[rest % 11], ends=rest % 3 == 0)
    if sort == 1:
        return Line(item=item, kind=1, target="abcdef"[rest % 6])
    if number == 2:
        return Line("ann", forget=True)
    return Line(user, session, item, rest % 3)


# In order of time, each with an event id of its own.
logs = st.lists(st.integers(0, 3999), max_size=60).map(
    lambda chosen: numbered(
        [_line(n)._replace(time_ms=10**12 + at * HOUR_MS // 4, event_id=f"e{at}") for at, n in enumerate(chosen)]
    )
)


def folded(lines: Sequence[Line], state: StateConfig, events: EventsConfig = EVENTS) -> Slice:
    """A slice of the log, whose kinds are numbered as `EVENTS` has them."""
    slice_ = Slice(state, events, state.max_users)
    fold(slice_, lines, events)
    return slice_


def fold(slice_: Slice, lines: Sequence[Line], events: EventsConfig = EVENTS) -> None:
    def number(line: Line) -> int:
        was, now = (EVENTS.relations, events.relations) if line.target else (EVENTS.kinds, events.kinds)
        return [*now].index([*was][line.kind])

    if lines:
        slice_.fold(batch([line._replace(kind=number(line)) for line in lines]).events, lines[-1].offset + 1)


def under(state: StateConfig, events: EventsConfig = EVENTS, partitions: int = 1) -> Fingerprint:
    return fingerprint(state, events, KafkaConfig(), partitions)


def changed(**update: object) -> StateConfig:
    return BASE.model_copy(update=update)


@settings(max_examples=60, deadline=None)
@given(lines=logs, was=sizes, now=sizes, at=st.integers(0, 90))
def test_shorter_rings_are_as_if_they_had_always_been_short_and_go_on_so(lines, was, now, at):
    now = {name: min(size, was[name]) for name, size in now.items()}
    # Of relations the older ones come back where a newer one ends, if there was room: so none may end after the change.
    lines = [line._replace(ends=line.ends and at > number) for number, line in enumerate(lines)]
    if now["relations"] < was["relations"]:
        lines = [line._replace(ends=False) for line in lines]
    before, after = changed(**was), changed(**now)
    got = converted(save(folded(lines[:at], before)), under(before), under(after))
    check_slice(got, under(after))
    restored = Slice(after, EVENTS, after.max_users)
    restored.restore(got)
    fold(restored, lines[at:])
    assert slice_digest(save(restored), after, EVENTS) == slice_digest(save(folded(lines, after)), after, EVENTS)


@settings(max_examples=40, deadline=None)
@given(lines=logs, more=st.integers(0, 30))
def test_longer_rings_hold_what_was_held_and_have_room_for_more(lines, more):
    before = changed(history=90, neighbors=90, relations=11)
    after = changed(history=90 + more, neighbors=90 + more, relations=11 + more)
    got = converted(save(folded(lines, before)), under(before), under(after))
    check_slice(got, under(after))
    assert slice_digest(got, after, EVENTS) == slice_digest(save(folded(lines, after)), after, EVENTS)


@settings(max_examples=40, deadline=None)
@given(lines=logs, was=sizes, now=sizes)
def test_however_rings_change_the_edges_that_fit_both_stay_in_their_order(lines, was, now):
    before, after = changed(**was), changed(**now)
    old = folded(lines, before)
    new = Slice(after, EVENTS, after.max_users)
    new.restore(converted(save(old), under(before), under(after)))
    for name, ring in old._rings().items():
        other = new._rings()[name]
        fits = min(ring.size, other.size)
        rows = torch.arange(old.items.rows if name.startswith("item") else old.users.rows)
        if name != "entity_items":
            for got, want in zip(other.latest(rows, fits).columns(), ring.latest(rows, fits).columns(), strict=True):
                assert torch.equal(got, want), name


@settings(max_examples=40, deadline=None)
@given(lines=logs)
def test_kinds_and_relations_keep_their_names_under_other_numbers(lines):
    got = converted(save(folded(lines, BASE)), under(BASE), under(BASE, OTHER_ORDER))
    check_slice(got, under(BASE, OTHER_ORDER))
    want = save(folded(lines, BASE, OTHER_ORDER))
    assert slice_digest(got, BASE, OTHER_ORDER) == slice_digest(want, BASE, OTHER_ORDER)


@settings(max_examples=40, deadline=None)
@given(lines=logs, limits=st.tuples(*[st.integers(1, 16)] * 3), at=st.integers(0, 90))
def test_lower_limits_leave_those_that_were_named_last_and_all_that_is_known_of_them(lines, limits, at):
    old = folded(lines[:at], BASE)
    after = changed(max_users=limits[0], max_items=limits[1], max_targets=limits[2])
    got = converted(save(old), under(BASE), under(after))
    check_slice(got, under(after))
    for sort, limit in zip(("users", "items", "targets"), limits, strict=True):
        nodes = old.relations.targets if sort == "targets" else getattr(old, sort)
        rows = [row for row, name in enumerate(nodes.ids()) if name is not None]
        newest = sorted(rows, key=lambda row: -int(nodes.seen.data[row]))[:limit]
        assert {name for name in getattr(got, sort) if name} == {nodes.id_of(row) for row in newest}, sort
        assert got.numbers[f"evicted_{sort}"] == max(0, len(rows) - limit)
    new = Slice(after, EVENTS, after.max_users)
    new.restore(got)
    for row, name in enumerate(new.users.ids()):
        assert name is None or history(new, name) == [
            one for one in history(old, name) if new.items.get(one) is not None
        ]
        assert row < after.max_users
    fold(new, lines[at:])
    check_slice(save(new), under(after))


def history(slice_: Slice, subject: str) -> list[str | None]:
    row = slice_.users.get(subject)
    assert row is not None
    edges = slice_.graph.user_items.latest(torch.tensor([row])).row[0]
    return [slice_.items.id_of(item) for item in edges[edges >= 0].tolist()]


def test_added_partitions_cut_the_share_of_users_and_keep_who_was_there_last():
    lines = numbered([Line(f"u{at}", "", "x", 0, at, event_id=f"e{at}") for at in range(16)])
    got = converted(save(folded(lines, BASE)), under(BASE), under(BASE, partitions=3))
    assert got.users == [f"u{at}" for at in range(10, 16)]
    check_slice(got, under(BASE, partitions=3))


def popularity(saved: SavedSlice, half_lives_s: Sequence[float]) -> np.ndarray:
    """[N, H] decayed counts at the newest event."""
    halvings = np.array([saved.numbers["newest_ms"] / (1000 * half_life_s) for half_life_s in half_lives_s])
    return saved.tables["popularity"].numpy() * 2.0 ** (np.array(saved.lists["landmark"]) - halvings)


@pytest.mark.parametrize("half_lives_s", [(600,), (600, 3600), (3600,), (3600, 3600, 600)])
def test_half_lives_that_stay_keep_their_counts(half_lives_s):
    lines = numbered([Line(f"u{at % 5}", "", "vwxyz"[at % 5], 0, 10**12 + at * 10**6) for at in range(50)])
    after = changed(half_lives_s=half_lives_s)
    got = converted(save(folded(lines, BASE)), under(BASE), under(after))
    assert slice_digest(got, after, EVENTS) == slice_digest(save(folded(lines, after)), after, EVENTS)


@pytest.mark.parametrize("half_life_s", [1.0, 7200.0, 86_400.0, 10.0**8])
def test_a_new_half_life_goes_on_from_the_counts_of_the_nearest(half_life_s):
    lines = numbered([Line(f"u{at % 5}", "", "vwxyz"[at % 5], 0, 10**12 + at * 10**6) for at in range(50)])
    old = save(folded(lines, BASE))
    after = changed(half_lives_s=(half_life_s, 600))
    got = converted(old, under(BASE), under(after))
    check_slice(got, under(after))
    before = popularity(old, BASE.half_lives_s)
    nearest = 1 if half_life_s < 600 else 0
    want = np.stack([before[:, nearest], before[:, 1]], axis=1)
    assert np.allclose(popularity(got, after.half_lives_s), want, rtol=1e-6)
    going_on = Slice(after, EVENTS, after.max_users)
    going_on.restore(got)
    fold(going_on, [Line("ann", "", "v", 0, lines[-1].time_ms + 1, 0, 50)])
    assert np.isfinite(going_on.popularity.table.data.numpy()).all()


@pytest.mark.parametrize("window", [0, 1, 7, 64, 100])
def test_a_window_of_another_size_has_the_newest_ids(window):
    lines = numbered([Line("ann", "", "x", 0, at, event_id=f"e{at}") for at in range(20)])
    after = changed(duplicates_window=window)
    new = Slice(after, EVENTS, after.max_users)
    new.restore(converted(save(folded(lines, BASE)), under(BASE), under(after)))
    held = [name.split("\x01")[0] for name in new.recent_ids.ordered()]  # without whose each is
    assert held == [f"e{at}" for at in range(20)][20 - min(window, 20) :]
    more = numbered([Line("ann", "", "x", 0, at % 30, event_id=f"e{at % 30}") for at in range(20, 60)])
    more = [line._replace(offset=line.offset + 20) for line in more]
    fold(new, more)
    if window:
        want = folded([*lines, *more], after)
        assert new.recent_ids.ordered() == want.recent_ids.ordered()


def test_where_fewer_users_may_be_held_so_may_sessions_with_their_users_and_shared_ones_stay():
    own = [Line("ann", f"own {at}", "x", time_ms=at) for at in range(6)]
    lines = numbered([Line("ann", "s1", "x"), Line("bob", "s1", "x"), *own])
    before, after = changed(max_users=9), changed(max_users=3)
    got = converted(save(folded(lines, before)), under(before), under(after))
    check_slice(got, under(after))
    restored = Slice(after, EVENTS, after.max_users)
    restored.restore(got)
    names = session_names(["s1", "own 3", "own 4", "own 5"])
    users = restored.session_users.users_of(names)
    assert (users != 0).sum(axis=1).tolist() == [2, 0, 1, 1]
