from __future__ import annotations

import numpy as np

from trainer.data.event_times import ends_together


def test_an_order_of_each_users_events_ends_within_one_step_and_no_two_users_at_once() -> None:
    who = np.repeat(np.arange(500), 4)
    order = np.tile([3.0, 5.0, 6.0, 9.0], 500) + who  # of each user the same steps, each begun later
    moved = ends_together(who, order).reshape(500, 4)
    assert np.allclose(np.diff(moved, axis=1), [2, 1, 3])
    last = moved[:, -1]
    assert len(np.unique(last)) == 500 and last.max() - last.min() < 1
    assert abs(np.corrcoef(last, np.arange(500))[0, 1]) < 0.2  # in a drawn order, not that of the file
    assert ends_together(who, order).tolist() == moved.reshape(-1).tolist()


def test_no_events_are_no_order() -> None:
    assert len(ends_together(np.zeros(0, np.int64), np.zeros(0))) == 0
