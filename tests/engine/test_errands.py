"""Work handed from one thread to another, and how its future ends."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from engine.errands import Errands, in_background

DEADLINE_S = 10.0


def test_errands_run_in_order_when_the_owner_works_them_off_and_each_future_tells_how_its_own_ended():
    woken, done = [], []
    errands = Errands(lambda: woken.append(len(errands)))
    first = errands.submit(lambda: done.append("first") or 1)
    broken = errands.submit(lambda: 1 // 0)
    last = errands.submit(lambda: done.append("last") or 2)
    assert woken == [1, 2, 3]
    assert not first.done()
    errands.work_off()
    assert done == ["first", "last"]
    assert (first.result(), last.result()) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        broken.result()


def test_an_errand_whose_future_was_cancelled_is_not_run():
    done = []
    errands = Errands(lambda: None)
    assert errands.submit(lambda: done.append("taken back")).cancel()
    errands.submit(lambda: done.append("kept"))
    errands.work_off()
    assert done == ["kept"]


def test_work_in_the_background_settles_its_answer_with_a_result_or_an_error():
    answers: list[Future[int]] = [Future(), Future()]
    for answer, divisor in zip(answers, (1, 0), strict=True):
        answer.set_running_or_notify_cancel()
        in_background("division", lambda divisor=divisor: 6 // divisor, answer)
    assert answers[0].result(DEADLINE_S) == 6
    with pytest.raises(ZeroDivisionError):
        answers[1].result(DEADLINE_S)
