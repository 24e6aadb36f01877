from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.features.table import HABITS
from trainer.habits import item_habits
from trainer.replay import EventLog

DAY_MS = 86_400_000
WORD = [0, 1, 2, 0]  # of each item


def log_of(rows: list[tuple[int, int, int]]) -> EventLog:
    """Events of (user, item, whether a session begins), a day apart."""
    session, current = [], {}
    for user, _, begins in rows:
        current[user] = current.get(user, 1) + begins
        session.append(current[user])
    n = len(rows)
    user, item = (torch.tensor([row[at] for row in rows], dtype=torch.int64) for at in (0, 1))
    zeros = torch.zeros(n, dtype=torch.int64)
    sessions = torch.tensor(session, dtype=torch.int32)
    return EventLog(user, item, torch.arange(n) * DAY_MS, zeros, zeros.float(), sessions, zeros - 1)


@given(rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1)), max_size=30))
def test_habits_are_what_plain_code_counts(rows: list[tuple[int, int, int]]) -> None:
    log = log_of(rows)
    found = item_habits(log, torch.tensor(WORD), 2)
    assert found.shape == (3, HABITS)
    again: list[tuple[int, int]] = []  # word and days
    same, events = [], []
    last: dict[tuple[int, int], int] = {}
    for at, (user, item, _) in enumerate(rows):
        events.append(WORD[item])
        before = last.get((user, item))
        if before is not None:
            if log.session[before] == log.session[at]:
                same.append(WORD[item])
            else:
                again.append((WORD[item], at - before))
        last[user, item] = at
    if not rows:
        assert not found.any()
        return
    mean_days = sum(days for _, days in again) / max(1, len(again))
    for word in range(3):
        mine = [days for other, days in again if other == word]
        n = events.count(word) + 10
        assert found[word, 0].item() == pytest.approx(2 * (len(mine) + 10 * len(again) / len(rows)) / n, abs=1e-5)
        assert found[word, 1].item() == pytest.approx(2 * (same.count(word) + 10 * len(same) / len(rows)) / n, abs=1e-5)
        days = (sum(mine) + 10 * mean_days) / (len(mine) + 10)
        assert found[word, 2].item() == pytest.approx(math.log1p(days) / 4, abs=1e-5)
