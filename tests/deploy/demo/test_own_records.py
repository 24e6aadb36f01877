from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ousel import Position

from deploy.demo.own_records import OwnRecords

HISTORY = 10


def status(reflects: dict[int, int], folded: int) -> Any:
    return SimpleNamespace(
        reflects=tuple(Position("events", partition, offset) for partition, offset in reflects.items()),
        events_folded=folded,
    )


@given(
    kinds=st.lists(st.sampled_from(["own", "lost", "event", "forget"]), max_size=30),
    read=st.integers(0, 30),
)
def test_own_events_are_counted_among_those_of_others_as_far_as_the_log_was_read(kinds: list[str], read: int) -> None:
    """One partition; an event is lost only where nobody else wrote anything that could hide it."""
    if "forget" in kinds or "event" in kinds:
        kinds = ["own" if kind == "lost" else kind for kind in kinds]
    own = OwnRecords(HISTORY)
    for place, kind in enumerate(kinds):
        if kind in ("own", "lost"):
            own.acked(0, HISTORY + place)
    seen_kinds = kinds[:read]
    folded = HISTORY + seen_kinds.count("own") + seen_kinds.count("event")
    seen = own.seen(status({0: HISTORY + len(seen_kinds) - 1}, folded))
    assert seen.folded == seen_kinds.count("own")
    assert seen.elsewhere == seen_kinds.count("event") + seen_kinds.count("forget")
    behind = kinds[read:]
    assert seen.all_reflected == (not {"own", "lost"} & set(behind))


def test_answers_that_come_out_of_order_are_counted() -> None:
    own = OwnRecords(0)
    for offset in (2, 0, 1):
        own.acked(1, offset)
    assert own.seen(status({0: -1, 1: 0}, 1)).folded == 1
    assert own.seen(status({0: -1, 1: 2}, 3)) == (3, 0, True)
