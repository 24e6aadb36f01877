"""What is kept of sessions equals their full forward, and how much is computed for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import metrics
from engine.config import EventsConfig, StateConfig
from engine.inference.session_anew import compute_anew
from engine.inference.session_cache import SessionCache
from engine.inference.session_forward import SessionForward
from engine.model.precision import in_precision
from engine.model.sequence import SequenceEncoder
from engine.state.ring import Neighbors
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch, decoded
from tests.engine.models import CONTENT_DIM, small_weights

HISTORY, WINDOW, DIM = 16, 4, 8
ITEMS = [f"i{at}" for at in range(6)]
events = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cid"]),
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(ITEMS),
        st.integers(0, 7),
        st.integers(0, 5 * HOUR_MS),
    ),
    max_size=12,
)


def encoder_of(blocks: int, **shape: object) -> SequenceEncoder:
    made = small_weights(blocks=blocks, window=WINDOW, dim=DIM, **shape).model.sequence
    draw = torch.Generator().manual_seed(3)
    for parameter in made.parameters():  # so that every part of it says something
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return made


def table_of(seed: int = 0) -> torch.Tensor:
    made = torch.randn(40, DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=1)


def state_of(**limits: int) -> State:
    return State(StateConfig(history=HISTORY, neighbors=3, content_dim=CONTENT_DIM, **limits), EventsConfig())


def encoded(how: str) -> float:
    return metrics.SESSIONS_ENCODED.labels(how)._value.get()


@pytest.mark.parametrize(
    ("blocks", "shape"),
    [(1, {}), (2, {"local_heads": 1, "local_window": 2}), (2, {"relative_time": False}), (3, {"gated": True})],
)
@given(steps=st.lists(st.tuples(events, st.lists(st.integers(0, 2), max_size=4)), max_size=12), size=st.integers(1, 3))
def test_equals_the_full_forward_over_the_ring(blocks, shape, steps, size) -> None:
    encoder, table, state = encoder_of(blocks, **shape), table_of(), state_of(max_users=8, max_items=8)
    cache, offset = SessionCache(encoder, size, HISTORY), 0
    for rows, asked in steps:
        folded = state.fold(decoded(rows, offset))
        offset += len(rows)
        cache.forget(torch.cat([folded.gone_users, folded.stale_users]))
        users = [row for row in state.find_users([["ann", "bob", "cid"][at] for at in asked]) if row >= 0]
        if users:
            history = state.histories(users)
            want = encoder(table, history)[:, -1]  # the windowed model over all that the ring has
            assert torch.allclose(cache.encoded(users, history, table), want, atol=1e-5)
            assert len(cache) <= size


def test_follows_items_that_are_forgotten_and_sessions_that_are_joined() -> None:
    encoder, table, state = encoder_of(2), table_of(), state_of(max_items=6)
    cache = SessionCache(encoder, 4, HISTORY)
    lines = [Line("", "web", f"i{at}", 0, 1000 * at) for at in range(3)]
    lines += [Line("ann", "web", f"i{3 + at % 3}", 1, 3000 + 1000 * at) for at in range(5)]
    lines += [Line("", "web", "i1", 0, 9000), Line("bob", "x", "new", 0, 9500), Line("bob", "x", "newer", 0, 9600)]
    lines += [Line("ann", "web", "i4", 0, 9700), Line("", "web", "i5", 0, 9800), Line("ann", "web", "i5", 0, 9900)]
    for at, line in enumerate(lines):
        folded = state.fold(batch([line._replace(offset=at, event_id=f"e{at}")]))
        cache.forget(torch.cat([folded.gone_users, folded.stale_users]))
        users = state.users().tolist()
        history = state.histories(users)
        assert torch.allclose(cache.encoded(users, history, table), encoder(table, history)[:, -1], atol=1e-5)
    (ann,) = state.find_users(["ann"])
    assert state.people.linked([ann]) and state.slices[0].slice.evicted_items  # else nothing was tried


def history_of(count: int, length: int = HISTORY) -> Neighbors:
    """The newest of `count` events of one user."""
    at = torch.arange(count - length, count)[None]
    there = at >= 0
    row, time_ms = torch.where(there, at % 40, -1), torch.where(there, 60_000 * at, 0)
    return Neighbors(row, time_ms, there.long(), there.float(), (there * (at // 3 + 1)).int())


@pytest.mark.parametrize("compiled", [True, False])
def test_one_event_costs_one_position(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    encoder, table = encoder_of(2), table_of()
    cache = SessionCache(encoder, 4, HISTORY)
    positions: list[int] = []
    plain = encoder.blocks[0].keys_values
    encoder.blocks[0].keys_values = lambda x: positions.append(x.shape[1]) or plain(x)  # type: ignore[method-assign]
    if compiled:
        assert cache._forward is not None
        append = cache._forward.append

        def counted(*given: Any) -> None:
            positions.extend(given[3].tolist())
            append(*given)

        def counted_anew(*given: Any) -> None:
            positions.append(given[1].row.shape[1])
            compute_anew(*given)

        monkeypatch.setattr(SessionForward, "append", lambda self, *given: counted(*given))
        monkeypatch.setattr("engine.inference.session_cache.compute_anew", counted_anew)
    else:
        cache._forward = None
    for count in (20, 21, 21, 23, 24, 60):
        cache.encoded([7], history_of(count), table)
    assert positions == [encoder.reach + 1, 1, 2, 1, encoder.reach + 1]


def test_an_item_is_read_once_and_again_after_an_eviction() -> None:
    encoder, before, after = encoder_of(1), table_of(), table_of(1)
    cache = SessionCache(encoder, 1, HISTORY)
    cache.encoded([7], history_of(20), before)
    newest = history_of(21)
    mixed = before.clone()
    mixed[newest.row[0, -1]] = after[newest.row[0, -1]]
    assert torch.allclose(cache.encoded([7], newest, after), encoder.latest(mixed, newest), atol=1e-5)
    cache.encoded([8], history_of(5), after)
    assert torch.allclose(cache.encoded([7], newest, after), encoder.latest(after, newest), atol=1e-5)


def test_the_longest_not_asked_for_is_evicted() -> None:
    encoder, table = encoder_of(1), table_of()
    cache = SessionCache(encoder, 2, HISTORY)
    for user in (1, 2, 1, 3):
        cache.encoded([user], history_of(9), table)
    unchanged, evicted = encoded("unchanged"), metrics.SESSIONS_EVICTED._value.get()
    cache.encoded([1, 3], Neighbors(*(torch.cat([c, c]) for c in history_of(9).columns())), table)
    assert encoded("unchanged") == unchanged + 2 and metrics.SESSIONS_EVICTED._value.get() == evicted
    cache.encoded([2], history_of(9), table)
    assert metrics.SESSIONS_EVICTED._value.get() == evicted + 1 and len(cache) == 2


def test_nothing_stays_of_who_is_forgotten() -> None:
    encoder, before, after = encoder_of(1), table_of(), table_of(1)
    cache = SessionCache(encoder, 2, HISTORY)
    cache.encoded([1], history_of(9), before)
    cache.forget(torch.tensor([1, 5]))
    assert len(cache) == 0
    assert torch.allclose(cache.encoded([1], history_of(9), after), encoder.latest(after, history_of(9)), atol=1e-5)


def test_a_model_that_reaches_beyond_the_ring_is_not_cached() -> None:
    encoder, table = encoder_of(5), table_of()
    assert encoder.reach == HISTORY
    cache = SessionCache(encoder, 4, HISTORY)
    assert torch.equal(cache.encoded([1], history_of(40), table), encoder.latest(table, history_of(40)))
    assert len(cache) == 0


def test_gated_blocks_and_fewer_bits_are_left_to_their_own_layers() -> None:
    assert SessionForward.of(encoder_of(2)) is not None
    assert SessionForward.of(encoder_of(2, gated=True)) is None
    assert SessionForward.of(in_precision(encoder_of(2), "int8")) is None


@pytest.mark.parametrize(("blocks", "dim"), [(1, 8), (2, 64)])
def test_a_query_is_the_same_with_whatever_others_it_is_encoded(blocks, dim) -> None:
    """Bit for bit: the events of other sessions are rows of other products."""
    encoder = small_weights(blocks=blocks, window=WINDOW, dim=dim).model.sequence
    table = torch.nn.functional.normalize(torch.randn(40, dim, generator=torch.Generator().manual_seed(0)), dim=1)
    parts = [history_of(count) for count in (0, 1, 2, 5, 7, 16, 40, 41, 1, 30)]
    history = Neighbors(*(torch.cat(columns) for columns in zip(*(one.columns() for one in parts), strict=True)))
    users = list(range(len(parts)))
    together = SessionCache(encoder, 16, HISTORY).encoded(users, history, table)
    for some in ([0], [1], [5], [9], [3, 1], [7, 6, 5, 0]):
        alone = SessionCache(encoder, 16, HISTORY).encoded(some, history.select(torch.tensor(some)), table)
        assert alone.tolist() == together[some].tolist()
