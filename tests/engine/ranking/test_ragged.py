from __future__ import annotations

import numpy as np

from engine.ranking.ragged import Ragged, padded


def test_lists_lie_one_behind_the_other():
    made = Ragged.of([[3, 1], (), np.array([7])])
    assert made.rows.tolist() == [3, 1, 7]
    assert made.first.tolist() == [0, 2, 2, 3]


def test_nothing_is_empty():
    assert Ragged.of([]).first.tolist() == [0]
    assert len(Ragged.of([(), ()]).rows) == 0
    assert Ragged.of([(), ()]).first.tolist() == [0, 0, 0]


def test_lists_are_padded_to_the_longest():
    assert padded([np.array([3, 1]), np.zeros(0, np.int64)]).tolist() == [[3, 1], [-1, -1]]
    assert padded([]).shape == (0, 0)
