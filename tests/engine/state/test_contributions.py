"""What one user adds to the decayed popularity of one item, against the sum of what each event added."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.clock import Clock
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch, numbered

MOST = 3.0
EVENTS = EventsConfig(kinds={"view": 1.0, "purchase": 3.0, "seen": 0.0})
BEGIN_MS = 1_600_000_000_000
HALF_LIVES_S = (7 * 86_400.0, 86_400.0, 3600.0)


def state_of(events: EventsConfig = EVENTS, **settings) -> State:
    return State(
        StateConfig(
            **{"half_lives_s": HALF_LIVES_S, "content_dim": 8, "max_users": 8192, "max_items": 1024} | settings
        ),
        events,
    )


def counts_of(state: State, *item_ids: str) -> np.ndarray:
    """[items, H] what items have now, one event at this moment having its weight."""
    now_ms = state.newest_ms
    rows = state.items.find(item_ids).numpy()
    scale = state._merged.landmarks()
    exponent = np.array([now_ms / (1000 * half_life_s) for half_life_s in HALF_LIVES_S]) - scale
    return state.decayed_counts_under(range(len(HALF_LIVES_S)), rows) / 2.0**exponent


def fold(state: State, lines: list[Line], sizes: list[int] | None = None) -> State:
    at = 0
    for size in [*(sizes or []), len(lines)]:
        if lines[at : at + size]:
            state.fold(batch(lines[at : at + size]))
        at += size
    return state


def attack(items: int, count: int, span_ms: int, *, kind: int = 0, sessions: int = 1) -> list[Line]:
    """Events of one user, in turn with several items, evenly over a span of time."""
    return numbered(
        Line("eve", f"s{at % sessions}", f"x{at % items}", kind, BEGIN_MS + at * span_ms // count)
        for at in range(count)
    )


@pytest.mark.parametrize("span_h", [0, 1, 24, 24 * 7, 24 * 700])
@pytest.mark.parametrize("sessions", [1, 500])
@pytest.mark.parametrize("size", [50_000, 997])
def test_50_000_views_of_one_user_earn_an_item_at_most_ten_times_what_one_view_earns(span_h, sessions, size):
    lines = attack(1, 50_000, span_h * HOUR_MS, sessions=sessions)
    lines.append(Line("bob", "", "y", 0, lines[-1].time_ms, offset=len(lines)))
    state = fold(state_of(), lines, [size] * (50_000 // size))
    attacked, once = counts_of(state, "x0", "y")
    assert (attacked <= 10.0 * once).all()
    assert attacked[0] > 7.9 and state.events_folded == 50_001


@pytest.mark.parametrize("items", [1, 2, 22, 100, 127])
@pytest.mark.parametrize("kind", [0, 1])
def test_the_bound_holds_for_each_of_the_items_that_a_user_takes_in_turn(items, kind):
    state = fold(state_of(), attack(items, 20_000, 24 * HOUR_MS, kind=kind), [997] * 10)
    counts = counts_of(state, *(f"x{at}" for at in range(items)))
    assert (counts <= 8.0 * [1.0, 3.0][kind] + 1e-9).all() and (counts[:, 0] > 7.5 * [1.0, 3.0][kind]).all()


def test_more_items_in_turn_than_the_ring_holds_are_known_by_the_rings_of_the_items():
    state = fold(state_of(), attack(500, 50_000, 24 * HOUR_MS), [100] * 500)
    assert (counts_of(state, *(f"x{at}" for at in range(500))) <= 8.0 + 1e-9).all()


def test_between_the_events_of_many_others_a_user_who_is_in_no_ring_adds_a_small_part_of_theirs():
    lines = []
    for turn in range(300):
        for at in range(130):
            lines.append(Line("eve", "", "x" if at == 0 else f"filler{at}", 0, BEGIN_MS + turn * 60_000))
        lines += [Line(f"u{turn}-{at}", "", "x", 0, BEGIN_MS + turn * 60_000) for at in range(16)]
    counts = counts_of(fold(state_of(), numbered(lines)), "x")[0]
    others = counts_of(fold(state_of(), numbered(one for one in lines if one.user != "eve")), "x")[0]
    assert (counts <= others * (1 + 1 / 16) + 8.0).all()


def test_late_events_in_between_do_not_make_room_for_more():
    lines = []
    for turn in range(200):
        now_ms = BEGIN_MS + turn * 60_000
        lines += [Line("eve", f"s{turn}", "x", 0, now_ms - 300 * 24 * HOUR_MS) for _ in range(130)]
        lines += [Line("eve", "", "x", 0, now_ms) for _ in range(10)]
    assert (counts_of(fold(state_of(), numbered(lines)), "x") <= 8.0 + 1e-6).all()


def test_a_view_after_purchases_adds_nothing_until_it_has_room_again():
    purchases = [Line("eve", "", "x", 1, BEGIN_MS) for _ in range(20)]
    state = fold(state_of(), numbered(purchases))
    assert counts_of(state, "x")[0, 0] == pytest.approx(24.0)
    fold(state, [Line("eve", "", "x", 0, BEGIN_MS, offset=20)])
    assert counts_of(state, "x")[0, 0] == pytest.approx(24.0)
    later_ms = BEGIN_MS + 14 * 24 * HOUR_MS
    fold(state, [Line("bob", "", "y", 0, later_ms, offset=at) for at in (21, 22)])  # The clock goes on.
    fold(state, [Line("eve", "", "x", 0, later_ms, offset=23)])
    assert counts_of(state, "x")[0].tolist() == pytest.approx([7.0, 1.0, 1.0], abs=0.01)


def test_a_kind_without_weight_adds_nothing_and_takes_no_room():
    lines = [Line("eve", "", "x", 2, BEGIN_MS) for _ in range(100)]
    state = fold(state_of(), numbered([*lines, *(Line("eve", "", "x", 0, BEGIN_MS) for _ in range(4))]))
    assert counts_of(state, "x")[0].tolist() == pytest.approx([4.0] * 3)


def test_a_user_of_habit_keeps_what_a_user_may_add():
    """Someone who plays a song many times a day for a year counts for as much as at the beginning."""
    state = fold(state_of(), attack(3, 10_000, 365 * 24 * HOUR_MS))
    assert counts_of(state, "x0", "x1", "x2")[:, 0].tolist() == pytest.approx([8.0] * 3, rel=0.02)


KNOWN = 200  # events before: with so many, none of these rings forgets a pair in the tests below


def line(user: str, session: str, item: str, kind: int, time_ms: int) -> Line:
    return Line(user, session, item, kind, time_ms)


lines = st.lists(
    st.builds(
        line,
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["", "s1"]),
        st.sampled_from(["x", "y"]),
        st.integers(0, 2),
        st.integers(0, 40 * 24).map(lambda hours: BEGIN_MS + hours * HOUR_MS),
    ),
    max_size=40,
).map(numbered)


@settings(max_examples=60)
@given(log=lines, sizes=st.lists(st.integers(1, 9), max_size=8))
def test_every_event_adds_its_weight_as_far_as_its_user_has_room(log, sizes):
    patient = EVENTS.model_copy(update={"max_future_s": 365 * 86_400.0})  # No time is so far ahead that it waits.
    state = fold(state_of(patient, user_item_weight=MOST, history=KNOWN, neighbors=KNOWN), log, sizes)
    if not log:
        return
    added: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    expected = {}
    for h, half_life_s in enumerate(HALF_LIVES_S):
        added.clear()
        clock = Clock(patient.max_future_s)
        for one in log:
            counted_ms = int(clock.read(np.array([one.time_ms]))[0])
            weight = [*EVENTS.kinds.values()][one.kind]
            late = 2.0 ** (-(clock.now_ms - counted_ms) / (1000 * half_life_s))
            held = sum(
                part * 2.0 ** (-(clock.now_ms - then_ms) / (1000 * half_life_s))
                for part, then_ms in added[one.user, one.item]
            )
            part = min(weight * late, max(0.0, MOST * weight - held))
            added[one.user, one.item].append((part, clock.now_ms))
        for item in "xy":
            expected[item, h] = sum(
                part * 2.0 ** (-(state.newest_ms - then_ms) / (1000 * half_life_s))
                for (_, name), parts in added.items()
                if name == item
                for part, then_ms in parts
            )
    for item in {one.item for one in log}:
        want = [expected[item, h] for h in range(len(HALF_LIVES_S))]
        assert counts_of(state, item)[0].tolist() == pytest.approx(want, rel=1e-6, abs=1e-9)


@settings(max_examples=60)
@given(log=st.lists(lines, min_size=4, max_size=4).map(lambda parts: numbered([one for part in parts for one in part])))
def test_the_bound_holds_whatever_times_the_events_bear(log):
    state = state_of(user_item_weight=MOST, history=KNOWN, neighbors=KNOWN)
    for one in log:
        fold(state, [one])
        assert (counts_of(state, one.item) <= 2 * 3 * MOST + 1e-6).all()  # two users, and purchases weigh 3


@settings(max_examples=60)
@given(log=lines, sizes=st.lists(st.integers(1, 9), max_size=8), room=st.integers(1, 4))
def test_with_room_for_few_pairs_and_short_rings_any_cutting_adds_the_same(log, sizes, room):
    tight = {"user_item_weight": MOST, "history": 2, "neighbors": 2, "repeated_pairs": room}
    if log:
        one_by_one = fold(state_of(**tight), log, [1] * len(log))
        whole = fold(state_of(**tight), log, sizes)
        for item in {one.item for one in log}:
            assert counts_of(whole, item).tobytes() == counts_of(one_by_one, item).tobytes()


def test_where_there_are_too_many_pairs_the_one_that_has_added_most_is_kept():
    state = state_of(repeated_pairs=8)
    lines = [Line("eve", "", "x", 0, BEGIN_MS) for _ in range(20)]
    for at in range(50):
        lines += [Line(f"u{at}", "", f"y{at}", 0, BEGIN_MS) for _ in range(2)]
    fold(state, numbered(lines))
    (placed,) = state.slices.values()
    assert len(placed.slice.contributions) == 8
    eve, x = placed.slice.users.get("eve"), placed.slice.items.get("x")
    assert placed.slice.contributions.items_of(eve).tolist() == [x]


def test_who_is_forgotten_leaves_no_pair_behind():
    state = fold(state_of(), attack(3, 30, 0))
    (placed,) = state.slices.values()
    assert len(placed.slice.contributions) == 3
    state.fold(batch([Line("eve", "", "", 0, BEGIN_MS, offset=30, forget=True)]))
    assert len(placed.slice.contributions) == 0
    assert not placed.slice.contributions.table.data.any() and not placed.slice.contributions.sums.data.any()
