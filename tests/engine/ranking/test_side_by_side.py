"""Parts that several threads make are all there, in order, and none is at work once the caller goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ranking.side_by_side import SideBySide

DEADLINE_S = 30.0


@pytest.fixture
def three() -> Iterator[SideBySide]:
    made = SideBySide(3)
    yield made
    made.close()


@given(threads=st.integers(1, 5), size=st.integers(0, 40))
def test_every_place_is_in_one_part_and_parts_come_in_order(threads: int, size: int) -> None:
    side_by_side = SideBySide(threads)
    parts = side_by_side.map(lambda span: list(range(size))[span], size)
    side_by_side.close()
    assert [place for _, part in parts for place in part] == list(range(size))
    assert all(list(range(size))[span] == part for span, part in parts)
    assert 1 <= len(parts) <= threads


def test_parts_are_worked_on_at_once(three: SideBySide) -> None:
    together = threading.Barrier(3, timeout=DEADLINE_S)

    def work(span: slice) -> str:
        together.wait()
        return threading.current_thread().name

    names = {name for _, name in three.map(work, 40)}
    assert len(names) == 3 and threading.current_thread().name in names


def test_few_lists_are_not_handed_over(three: SideBySide) -> None:
    ((span, name),) = three.map(lambda span: threading.current_thread().name, 7)
    assert (span, name) == (slice(0, 7), threading.current_thread().name)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_part_that_fails_is_raised_once_no_part_is_at_work(three: SideBySide, failing: int) -> None:
    begun, ended = [], []

    def work(span: slice) -> None:
        begun.append(span)
        if span == slice(4 * failing, 4 * failing + 4):
            raise ValueError(f"part {failing}")
        ended.append(span)

    with pytest.raises(ValueError, match=f"part {failing}"):
        three.map(work, 12)
    assert (len(begun), len(ended)) == (3, 2)
