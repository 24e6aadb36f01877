"""What is kept of queries equals encoding each session anew, and how often nothing is encoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import metrics
from engine.inference.query_cache import QueryCache
from engine.inference.session_cache import SessionCache
from engine.model.sequence import SequenceEncoder
from engine.state.ring import History, Neighbors
from tests.engine.inference.test_session_cache import DIM, HISTORY, encoder_of, events, state_of, table_of
from tests.engine.logs import HOUR_MS, Line, batch, decoded

USERS = ["ann", "bob", "cid"]


def cache_of(encoder: SequenceEncoder, size: int, sessions: int = 0) -> QueryCache:
    return QueryCache(SessionCache(encoder, sessions, HISTORY), size, encoder.reach, DIM)


def encoded(
    cache: QueryCache, users: list[int], history: Neighbors, table: torch.Tensor, goal: int | None = None
) -> torch.Tensor:
    whole = History(*map(np.ascontiguousarray, history.arrays()))
    return torch.from_numpy(cache.encoded(np.array(users), whole, table, goal))


def counts() -> tuple[float, float]:
    return metrics.QUERIES_KEPT._value.get(), metrics.QUERIES_ENCODED._value.get()


@pytest.mark.parametrize("size", [0, 1, 2, 8])
@pytest.mark.parametrize("sessions", [0, 2])
@given(steps=st.lists(st.tuples(events, st.lists(st.integers(0, 2), max_size=5)), max_size=12))
def test_equals_encoding_anew_whatever_was_folded_evicted_or_shares_a_place(size, sessions, steps) -> None:
    encoder, table, state = encoder_of(2), table_of(), state_of(max_users=2, max_items=4)
    cache, offset = cache_of(encoder, size, sessions), 0
    for rows, asked in steps:
        folded = state.fold(decoded(rows, offset))
        offset += len(rows)
        cache.forget(torch.cat([folded.gone_users, folded.stale_users]))
        users = [row for row in state.find_users([USERS[at] for at in asked]) if row >= 0]
        if users:
            history = state.histories(users)
            want = encoder.latest(table, history)
            assert torch.allclose(encoded(cache, users, history, table), want, atol=1e-5)
            # Columns without an event say nothing.
            longest = max(1, int(history.mask.sum(1).max()))
            assert torch.allclose(encoded(cache, users, history.last(longest), table), want, atol=1e-5)


def history_after(*lines: Line):
    state = state_of(max_users=8, max_items=8)
    state.fold(batch([line._replace(offset=at, event_id=f"e{at}") for at, line in enumerate(lines)]))
    return state.histories(state.find_users(["ann"]))


def test_without_a_new_event_nothing_is_encoded_and_the_query_is_as_of_the_last_one() -> None:
    encoder, before, after = encoder_of(1), table_of(), table_of(seed=1)
    cache = cache_of(encoder, 4)
    line = Line("ann", "s1", "i1", 0, HOUR_MS)
    history = history_after(line)
    first = encoded(cache, [0], history, before)
    kept, fresh = counts()
    assert torch.equal(encoded(cache, [0], history, after), first)
    assert counts() == (kept + 1, fresh)
    more = history_after(line, line._replace(item="i2", time_ms=2 * HOUR_MS))
    assert torch.allclose(encoded(cache, [0], more, after), encoder.latest(after, more), atol=1e-6)
    assert counts() == (kept + 1, fresh + 1)


@pytest.mark.parametrize("change", [{"item": "i2"}, {"kind": 3}, {"time_ms": 2 * HOUR_MS}, {"session": "s9"}], ids=str)
def test_any_other_history_is_encoded(change) -> None:
    encoder, table = encoder_of(2), table_of()
    cache = cache_of(encoder, 4)
    lines = [Line("ann", "s1", "i1", 0, HOUR_MS)] * 2
    encoded(cache, [0], history_after(*lines), table)
    changed = history_after(lines[0], lines[1]._replace(**change))
    assert torch.allclose(encoded(cache, [0], changed, table), encoder.latest(table, changed), atol=1e-6)


def test_another_goal_is_another_query() -> None:
    encoder, table = encoder_of(1, by_kind=True), table_of()
    cache, history = cache_of(encoder, 4), history_after(Line("ann", "s1", "i1", 0, HOUR_MS))
    assert not torch.allclose(encoded(cache, [0], history, table, 1), encoded(cache, [0], history, table, 2))
    assert torch.allclose(encoded(cache, [0], history, table), encoder.latest(table, history), atol=1e-6)


def test_nothing_stays_of_a_user_who_is_forgotten() -> None:
    encoder, table = encoder_of(1), table_of()
    cache, history = cache_of(encoder, 4), history_after(Line("ann", "s1", "i1", 0, HOUR_MS))
    encoded(cache, [5], history, table)
    cache.forget(torch.tensor([5]))
    assert not cache._kept.query.any() and not cache._kept.print.any()
