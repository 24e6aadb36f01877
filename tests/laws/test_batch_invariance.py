"""Law 1: any cutting of one log into batches folds to the same state, bit for bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.state import State
from tests.engine.logs import HOUR_MS, cut

CONFIG = StateConfig(history=4, neighbors=3, session_gap_s=1800, half_life_s=3600)
rows = st.lists(
    st.tuples(
        st.sampled_from(["", "ann", "bob"]),
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(["x", "y", "z"]),
        st.integers(0, 7),
        st.integers(0, 100 * HOUR_MS),
    ),
    max_size=40,
)


def folded(batches) -> State:
    state = State(CONFIG, EventsConfig())
    for batch in batches:
        state.fold(batch)
    return state


def fingerprint(state: State) -> dict[str, bytes | list[str] | dict]:
    parts: dict = {"users": list(state.users.ids()), "items": list(state.items.ids()), "positions": state.positions}
    for name in ("user_items", "item_users", "item_next"):
        ring = getattr(state.graph, name)
        for column in ("neighbor", "time_ms", "kind", "weight", "session", "degree"):
            parts[f"{name}.{column}"] = getattr(ring, column).numpy().tobytes()
    for column in ("ordinal", "name", "last_item", "last_time_ms"):
        parts[f"sessions.{column}"] = getattr(state.sessions, column).numpy().tobytes()
    parts["popularity"] = state.popularity.score.tobytes()
    parts["top"] = state.popularity.top().tolist()
    parts["folded"] = state.events_folded
    return parts


@given(log=rows, lengths=st.lists(st.integers(0, 10), max_size=8))
def test_any_cutting_folds_to_the_same_state(log, lengths):
    assert fingerprint(folded(cut(log, lengths))) == fingerprint(folded(cut(log, [1] * len(log))))
