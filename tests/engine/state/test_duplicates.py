"""Repeats of event ids against a window over the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.state.duplicates import RecentIds

ids = st.lists(st.sampled_from(["", *"abcdefgh"]), max_size=60)


def one_by_one(log: list[str], size: int) -> tuple[list[int], list[str]]:
    """Positions of the fresh events, and the window at the end, oldest first."""
    fresh: list[int] = []
    window: list[str] = []
    for at, name in enumerate(log):
        if name and name in window:
            continue
        fresh.append(at)
        if name and size:
            window = [*window, name][-size:]
    return fresh, window


@given(log=ids, lengths=st.lists(st.integers(0, 12), max_size=8), size=st.integers(0, 10), restore=st.booleans())
def test_any_batching_finds_the_repeats_that_a_window_over_the_log_finds(log, lengths, size, restore):
    recent, at, fresh = RecentIds(size), 0, []
    for length in [*lengths, len(log)]:
        part = log[at : at + length]
        kept = recent.fresh(part)
        fresh += [at + position for position in (range(len(part)) if kept is None else kept)]
        at += len(part)
        if restore:
            saved, recent = recent.ordered(), RecentIds(size)
            recent.restore(saved)
        assert len(recent) <= size
    assert (fresh, recent.ordered()) == one_by_one(log, size)


@pytest.mark.parametrize("size", [1, 2, 999, 1000, 1001, 4096])
def test_batches_around_the_size_of_the_window(size):
    log = [f"e{at % 1500}" for at in range(5000)]
    for length in (1, 7, 1000, 1001, 5000):
        recent, fresh = RecentIds(size), []
        for at in range(0, len(log), length):
            part = log[at : at + length]
            kept = recent.fresh(part)
            fresh += [at + position for position in (range(len(part)) if kept is None else kept)]
        want, window = one_by_one_quickly(log, size)
        assert (fresh, recent.ordered()) == (want, window)


def one_by_one_quickly(log: list[str], size: int) -> tuple[list[int], list[str]]:
    fresh: list[int] = []
    window: dict[str, None] = {}
    for at, name in enumerate(log):
        if name in window:
            continue
        fresh.append(at)
        window[name] = None
        if len(window) > size:
            del window[next(iter(window))]
    return fresh, list(window)


def test_events_without_an_id_are_never_repeats_and_take_no_room():
    recent = RecentIds(2)
    recent.fresh(["a", "b"])
    assert recent.fresh(["", "", ""]) is None
    assert recent.fresh(["a", "", "a"]) == [1]
    assert recent.ordered() == ["a", "b"]


def test_ids_that_differ_in_case_or_unicode_form_are_no_repeats():
    assert RecentIds(9).fresh(["e\u0301", "\u00e9", "E\u0301", "a", "A"]) is None
