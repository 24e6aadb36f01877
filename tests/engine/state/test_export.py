"""What is held about one user, across partitions."""

from __future__ import annotations

from engine.config import EventsConfig, StateConfig
from engine.state.export import RememberedEvent, RememberedRelation, Subject, export_subject
from engine.state.state import State
from engine.state.subjects import subject_key
from tests.engine.logs import Line, batch, numbered

PARTITIONS = 3


def folded(*lines: Line) -> State:
    config = StateConfig(history=4, neighbors=3, content_dim=8, max_users=24, max_items=16)
    state = State(config, EventsConfig(), partitions=PARTITIONS)
    state.fold(batch(numbered(lines)))
    return state


def remembered(item_id: str, time_ms: int, session: int = 1) -> RememberedEvent:
    return RememberedEvent(item_id, 0, time_ms, 1.0, session)


def test_an_anonymous_session_is_exported_with_the_user_it_was_linked_to_wherever_it_lies():
    state = folded(
        Line("ann", "s1", "x", time_ms=5),
        Line("ann", "s2", "y", time_ms=6),
        Line("", "s1", "z", time_ms=1),
        Line("", "s2", "x", time_ms=2, partition=1),
        Line("bob", "s3", "x", time_ms=7, partition=1),
        Line("", "s3", "y", time_ms=3, partition=1),
        Line("ann", "s4", "v", time_ms=8, partition=2),
        Line("", "s4", "w", time_ms=4),
    )
    found = {(one.partition, one.session_id): one for one in export_subject(state, "ann")}
    assert found == {
        (0, ""): Subject(0, "", (remembered("x", 5), remembered("y", 6, 2)), 2, ("x", "y")),
        (0, "s1"): Subject(0, "s1", (remembered("z", 1),), 1, ("z",)),
        (1, "s2"): Subject(1, "s2", (remembered("x", 2),), 1, ("x",)),
        (2, ""): Subject(2, "", (remembered("v", 8),), 1, ("v",)),
        (0, "s4"): Subject(0, "s4", (remembered("w", 4),), 1, ("w",)),  # the link lies in another partition
    }
    assert len(export_subject(state, "ann")) == len(found)


def test_a_session_that_is_asked_for_is_exported_without_the_user():
    state = folded(Line("ann", "s1", "x"), Line("", "s1", "z", time_ms=1))
    (one,) = export_subject(state, subject_key("", "s1"))
    assert one == Subject(0, "s1", (remembered("z", 1),), 1, ("z",))


def test_relations_are_exported_from_both_sides():
    state = folded(
        Line("ann", target="bob", time_ms=3, value=2.0),
        Line("cid", target="ann", partition=1),
        Line("dan", target="ann", partition=1),
    )
    own, named = export_subject(state, "ann")
    assert own.relations == (RememberedRelation("bob", 0, 3, 2.0),)
    assert (named.partition, named.named_by_users, named.history) == (1, 2, ())


def test_nothing_is_exported_of_somebody_unknown():
    assert export_subject(folded(Line("ann", "s1", "x")), "bob") == ()
