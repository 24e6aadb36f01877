from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EventsConfig
from engine.state.subjects import subject_key
from tests.engine import logs
from tests.engine.logs import Line
from tests.trainer.planted import KINDS
from trainer.archive.rows import SCHEMA, rows_of, to_events, to_table

LINES = [
    Line("é", "s", "x", kind=7, time_ms=5, offset=1, event_id="1", value=0.1),
    Line("", "s", "y", time_ms=253_402_300_799_999, partition=2, offset=9_000_000_000),
    Line("a", target="b", kind=1, offset=3),
    Line(item="x", target="brand", kind=2, offset=4, ends=True),
]


def test_rows_are_the_events_again() -> None:
    events = logs.batch(LINES).events
    table = to_table(events, 40, KINDS)
    assert table.schema == SCHEMA
    assert table["ordinal"].to_pylist() == [40, 41, 42, 43]
    assert table["kind"].to_pylist() == ["purchase", "view", "friend", "has"]
    again = to_events(table, KINDS)
    for name in type(events).__dataclass_fields__:
        column, found = getattr(events, name), getattr(again, name)
        assert list(found) == list(column), name
        assert getattr(found, "dtype", None) == getattr(column, "dtype", None), name


def test_a_record_that_forgets_is_kept_without_its_subject() -> None:
    events = logs.batch([Line("ann", "s", forget=True, event_id="f"), Line("bob", "t", "x", offset=1)]).events
    rows = to_table(events, 0, KINDS).to_pylist()
    assert [(row["user_id"], row["session_id"], row["event_id"], row["forget"]) for row in rows] == [
        ("", "", "f", True),
        ("bob", "t", "", False),
    ]


def test_kinds_are_read_by_the_numbers_that_they_have_now_and_unknown_ones_left_out() -> None:
    table = to_table(logs.batch(LINES).events, 0, KINDS)
    changed = EventsConfig(kinds={"purchase": 1, "view": 1}, relations={"has": 1, "follows": 1})
    events = to_events(table, changed)
    assert events.kind.tolist() == [0, 1, 0]
    assert events.offset.tolist() == [1, 9_000_000_000, 4]


names = st.sampled_from(["", "a", "b", "s"])
places = st.dictionaries(
    st.tuples(st.sampled_from([("a", ""), ("b", "s"), ("", "s"), ("", "a")]), st.integers(0, 1)), st.integers(0, 6)
)


said = st.builds(
    lambda user, session, item, target, partition: Line(user, session, item, target=target, partition=partition),
    names, names, names, names, st.integers(0, 1),
)  # fmt: skip


def concerns(line: Line, user: str, session: str) -> bool:
    if user:
        return line.user == user or (line.target == user and not line.item)
    return line.session == session and not line.user


@settings(max_examples=100, deadline=None)
@given(said=st.lists(said, max_size=8), places=places)
def test_rows_of_a_subject_are_its_own_and_those_that_relate_others_to_it(
    said: list[Line], places: dict[tuple[tuple[str, str], int], int]
) -> None:
    lines = logs.numbered(said)
    expected = [
        any(
            line.partition == partition and line.offset < below and concerns(line, *whom)
            for (whom, partition), below in places.items()
        )
        for line in lines
    ]
    table = to_table(logs.batch(lines).events, 0, KINDS)
    keyed = {(subject_key(*whom), partition): below for (whom, partition), below in places.items()}
    assert rows_of(table, keyed).tolist() == expected
