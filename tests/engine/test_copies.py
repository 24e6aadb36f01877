"""Copies made one piece at a time, without a state."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from engine.copies import Copies


class Countdown:
    """A copy of so many pieces; at a negative count it fails."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces

    def step(self) -> bool:
        if self.pieces < 0:
            raise OSError("no memory")
        self.pieces -= 1
        return self.pieces == 0


def test_copies_are_made_one_after_another_a_piece_at_a_time():
    copies, done = Copies(), []
    first, second = Countdown(2), Countdown(1)
    copies.want(lambda: first, done.append)
    copies.want(lambda: second, done.append)
    pieces_left = []
    while len(copies):
        copies.step()
        pieces_left.append((first.pieces, second.pieces))
    assert pieces_left == [(1, 1), (0, 1), (0, 0)]
    assert done == [first, second]


@pytest.mark.parametrize("pieces", [None, -1])
def test_who_waits_for_a_copy_hears_of_an_error_at_its_begin_or_on_the_way(pieces):
    def begin() -> Countdown:
        if pieces is None:
            raise OSError("no memory")
        return Countdown(pieces)

    copies, answer = Copies(), Future()
    copies.want(begin, answer.set_result, answer.set_exception)
    with pytest.raises(OSError, match="no memory"):
        copies.finish()
    assert isinstance(answer.exception(0), OSError)
    assert len(copies) == 0
