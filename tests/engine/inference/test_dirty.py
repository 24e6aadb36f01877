from __future__ import annotations

import torch

from engine.inference.dirty import DirtyRows


def test_takes_each_row_once_and_the_oldest_first():
    dirty = DirtyRows()
    dirty.add(torch.tensor([5, 3]))
    dirty.add(torch.tensor([3, 9]))
    assert dirty.take(2).tolist() == [5, 3]
    assert dirty.take(5).tolist() == [9]
    assert dirty.take(5).tolist() == []


def test_a_row_brought_up_to_date_otherwise_is_forgotten():
    dirty = DirtyRows()
    dirty.add(torch.tensor([1, 2]))
    dirty.discard(torch.tensor([1, 7]))
    assert len(dirty) == 1 and dirty.take(0).tolist() == [] and dirty.take(1).tolist() == [2]
