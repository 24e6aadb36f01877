"""Law 8, the second half: one record changes decayed popularity by its own weight at most, whatever time it bears.

Nor does a late one change how the sessions of all other events are cut.
"""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch, numbered

PARTITIONS, ITEMS, USERS = 2, [*"xyz"], ["ann", "bob"]
BEGIN_MS, LATEST_MS = 1_700_000_000_000, 253_402_300_799_999
CONFIG = StateConfig(max_users=64, max_items=64, content_dim=8, half_lives_s=(7 * 86_400, 86_400, 3600))
EVENTS = EventsConfig()
WEIGHTS = [*EVENTS.kinds.values()]

# How much later than the newest before in its partition an event is, at most a day; late ones are of any age.
step_ms = st.integers(-400 * 24 * HOUR_MS, 24 * HOUR_MS) | st.integers(0, 24 * HOUR_MS) | st.integers(-HOUR_MS, HOUR_MS)
happened = st.tuples(
    st.sampled_from(USERS), st.sampled_from(ITEMS), st.integers(0, 7), st.integers(0, PARTITIONS - 1), step_ms
)
logs = st.lists(happened, max_size=25)
any_time = st.integers(0, LATEST_MS) | st.integers(BEGIN_MS - 400 * HOUR_MS, BEGIN_MS + 400 * HOUR_MS)


def lines_of(log: list[tuple]) -> list[Line]:
    """Two events in each partition first, which show the time; then the log."""
    lines = [Line("cid", "", "x", 0, BEGIN_MS, at % PARTITIONS) for at in range(2 * PARTITIONS)]
    newest_ms = [BEGIN_MS] * PARTITIONS
    for user, item, kind, partition, ahead_ms in log:
        time_ms = newest_ms[partition] + ahead_ms
        newest_ms[partition] = max(newest_ms[partition], time_ms)
        lines.append(Line(user, "", item, kind, time_ms, partition))
    return lines


def folded(lines: list[Line]) -> State:
    """Folds in batches of a few records, since a clock reads its first batch in another way than further ones."""
    state = State(CONFIG, EVENTS, partitions=PARTITIONS)
    numbered_lines = numbered(lines)
    for first in range(0, len(lines), 5):
        state.fold(batch(numbered_lines[first : first + 5]))
    return state


def popularity(state: State, now_ms: int) -> np.ndarray:
    """[items, half-lives] decayed popularity at a time."""
    half_lives = range(len(CONFIG.half_lives_s))
    counts = state.decayed_counts_under(half_lives, state.items.find(ITEMS).numpy())
    scale = state._merged.landmarks() - now_ms / (np.array(CONFIG.half_lives_s) * 1000)
    return counts * np.exp2(scale)


def counted_ms(before: list[Line], record: Line) -> int:
    """The time that a record counts at: its own, or its partition's clock where it leaps far ahead of that clock.

    No event before it may leap, so that the clock is the latest of their times.
    """
    clock_ms = max(line.time_ms for line in before if line.partition == record.partition)
    return record.time_ms if record.time_ms <= clock_ms + 1000 * EVENTS.max_future_s else clock_ms


@given(log=logs, at=st.integers(0, 30), time_ms=any_time, item=st.sampled_from(ITEMS), kind=st.integers(0, 7))
# The log goes on for so long after the record that the scale of the counts moves.
@example(log=[("ann", "x", 0, 0, 12 * HOUR_MS)] * 5, at=1, time_ms=BEGIN_MS + 11 * HOUR_MS, item="y", kind=0)
def test_one_record_changes_decayed_popularity_by_its_weight_at_most_whatever_time_it_bears(
    log, at, time_ms, item, kind
):
    """At every moment of asking, also at the earlier one of the two clocks: its weight as it has decayed until then.

    A record that leaps ahead by more than `events.max_future_s` counts at its partition's clock. One that leaps less is
    believed, so at a moment before its own time it counts more than its weight, by as much as it will decay until then.

    It holds for partitions that have had an event before, and for logs whose events never leap ahead by more than
    `events.max_future_s`. After a pause of more than that the first event counts at the pause's begin; one record right
    before or after that event may make the clock follow earlier or later, so that few of the events there count at
    another time than without that record, by their own weights at most.
    """
    # All items have a row in both states.
    lines = [*(Line("cid", "", one, 0, BEGIN_MS) for one in ITEMS), *lines_of(log)]
    at = min(len(lines), at + len(ITEMS) + 2 * PARTITIONS)
    record = Line("eve", "", item, kind, time_ms, at % PARTITIONS)
    without, with_it = folded(lines), folded([*lines[:at], record, *lines[at:]])
    half_lives_ms = np.array(CONFIG.half_lives_s) * 1000
    for now_ms in (without.newest_ms, with_it.newest_ms, with_it.newest_ms + 100 * HOUR_MS):
        decayed = WEIGHTS[kind] * np.exp2((counted_ms(lines[:at], record) - now_ms) / half_lives_ms)
        expected = np.array([decayed if one == item else np.zeros(len(half_lives_ms)) for one in ITEMS])
        before = popularity(without, now_ms)
        np.testing.assert_allclose(popularity(with_it, now_ms) - before, expected, rtol=1e-8, atol=1e-8)


@given(log=logs, time_ms=st.integers(BEGIN_MS + 25 * 30 * 24 * HOUR_MS, LATEST_MS), at=st.integers(0, 30))
def test_one_record_of_the_far_future_does_not_move_the_clock(log, time_ms, at):
    lines = lines_of(log)
    at = min(len(lines), at + 2 * PARTITIONS)
    more = [*lines[:at], Line("eve", "", "y", 0, time_ms, at % PARTITIONS), *lines[at:]]
    assert folded(more).newest_ms == folded(lines).newest_ms


def test_one_record_of_the_year_2100_leaves_the_popularity_of_all_others_on_a_broker_that_takes_it():
    state = State(CONFIG, EVENTS, partitions=PARTITIONS)
    lines = numbered([Line(f"u{at}", "", "y", 0, BEGIN_MS + at * 60_000) for at in range(20)])
    state.fold(batch(lines))
    # The other partition has not had any event before.
    state.fold(batch([Line("eve", "", "x", 0, 4_102_444_800_000, partition=1)]))
    assert [state.items.id_of(row) for row in state.popularity.top(2).tolist()] == ["y", "x"]
    counts = state.decayed_counts(state.items.find(["x", "y"]).numpy())
    assert 0 < counts[0] <= counts[1]
    state.fold(batch([Line("eve", "", "x", 0, 4_102_444_800_000, offset=20)]))
    counts = state.decayed_counts(state.items.find(["x", "y"]).numpy())
    assert 0 < counts[0] <= counts[1] and state.newest_ms == lines[-1].time_ms


def cuts(state: State, user: str) -> list[tuple[str, int]]:
    """Item and session of each event of a user, but of the item of the late record."""
    (row,) = state.find_users([user])
    found = state.histories([row])
    return [
        (state.items.id_of(item), session)
        for item, session in zip(found.row[0].tolist(), found.session[0].tolist(), strict=True)
        if item >= 0 and state.items.id_of(item) != "late"
    ]


@given(
    pauses=st.lists(st.integers(0, 3600), min_size=1, max_size=20),
    at=st.integers(1, 20),
    late_s=st.integers(1801, 10**8),
    named=st.lists(st.sampled_from(["", "", "s1", "s2"]), min_size=21, max_size=21),
    session=st.sampled_from(["", "s3"]),
)
def test_a_late_record_leaves_the_sessions_of_all_other_events_as_they_are(pauses, at, late_s, named, session):
    times = [BEGIN_MS + 1000 * sum(pauses[:count]) for count in range(len(pauses) + 1)]
    lines = [Line("ann", named[n], "x" if n % 2 else "y", 0, time_ms) for n, time_ms in enumerate(times)]
    at = min(len(lines), at)
    late = Line("ann", session, "late", 0, times[at - 1] - 1000 * late_s)
    assert cuts(folded([*lines[:at], late, *lines[at:]]), "ann") == cuts(folded(lines), "ann")
