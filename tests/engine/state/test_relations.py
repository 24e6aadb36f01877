"""The relations of one partition, against dicts that are changed event by event."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.state.relations import entity_key
from engine.state.ring import Ring
from engine.state.slice import Slice
from engine.state.subjects import subject_key
from tests.engine.logs import Line, batch, numbered
from tests.engine.state.digests import edges_of, slice_digest

KEPT = 3


def new_slice(users: int = 64, **limits) -> Slice:
    limits = {"max_items": 64, "max_targets": 64, "relations": KEPT, "content_dim": 8} | limits
    return Slice(StateConfig(**limits), EventsConfig(), users)


def follows(user: str, target: str, **rest) -> Line:
    return Line(user, target=target, **rest)


def has(item: str, entity: str, **rest) -> Line:
    return Line(item=item, target=entity, **rest)


def fold(one: Slice, lines: Sequence[Line]):
    return one.fold(batch(lines).events, lines[-1].offset + 1)


def folded(*lines: Line, **limits) -> Slice:
    one = new_slice(**limits)
    fold(one, numbered(lines))
    return one


def edges(one: Slice, ring: Ring, row: int | None, id_of) -> list[tuple]:
    return [] if row is None else [edge[:4] for edge in edges_of(ring.latest(torch.tensor([row])), 0, id_of)]


def users_of(one: Slice, user: str) -> list[tuple]:
    return edges(one, one.relations.user_users, one.users.get(user), one.relations.targets.id_of)


def entities_of(one: Slice, item: str) -> list[tuple]:
    return edges(one, one.relations.item_entities, one.items.get(item), one.relations.targets.id_of)


def items_of(one: Slice, entity: str) -> list[tuple]:
    row = one.relations.targets.get(entity_key(entity))
    return edges(one, one.relations.entity_items, row, one.items.id_of)


def names(found: list[tuple]) -> list[str]:
    return [edge[0] for edge in found]


def test_a_relation_is_remembered_with_its_time_kind_and_strength_and_is_no_interaction():
    one = new_slice()
    lines = numbered([follows("ann", "bob", kind=1, time_ms=7, value=2.5), has("x", "Ford", kind=2, time_ms=8)])
    got = fold(one, lines)
    assert users_of(one, "ann") == [("bob", 7, 1, 2.5)]
    assert entities_of(one, "x") == [(entity_key("Ford"), 8, 2, 1.0)] and items_of(one, "Ford") == [("x", 8, 2, 1.0)]
    assert got.relation.tolist() == [0, 1] and len(got.event) == len(got.user) == len(got.item) == 0
    assert (got.related_users.tolist(), got.related_items.tolist()) == ([0], [0])
    assert list(one.users.ids()) == ["ann"] and list(one.items.ids()) == ["x"] and one.events_folded == 2
    assert one.sessions.count(0) == 0 and not one.graph.user_items.latest(torch.tensor([0])).mask.any()


def test_a_user_an_item_an_entity_and_a_session_of_one_name_are_four():
    one = folded(follows("bob", "x"), has("x", "x"), Line("", "x", "y"), Line("x", "", "x"))
    assert names(users_of(one, "bob")) == ["x"] and names(items_of(one, "x")) == ["x"]
    assert list(one.relations.targets.ids()) == ["x", entity_key("x")]
    fold(one, [Line("", "x", forget=True, offset=4)])
    assert list(one.relations.targets.ids()) == ["x", entity_key("x")]
    fold(one, [Line("x", "", forget=True, offset=5)])
    assert users_of(one, "bob") == [] and list(one.relations.targets.ids()) == [None, entity_key("x")]
    assert names(items_of(one, "x")) == ["x"] and one.forgotten == 2


def test_a_repeat_renews_a_relation_in_its_one_place():
    one = folded(follows("ann", "bob"), follows("ann", "cid"), follows("ann", "bob", kind=1, time_ms=9, value=4.0))
    assert users_of(one, "ann") == [("cid", 0, 0, 1.0), ("bob", 9, 1, 4.0)]
    fold(one, numbered([*[follows("ann", "bob")] * 3, *[follows("ann", "bob")] * 100])[3:])
    assert names(users_of(one, "ann")) == ["cid", "bob"]


def test_of_too_many_the_one_not_named_for_longest_goes_and_what_ended_leaves_room():
    one = folded(*(follows("ann", name) for name in "bcd"), follows("ann", "b"), follows("ann", "e"))
    assert names(users_of(one, "ann")) == ["d", "b", "e"]
    rest = numbered([*[Line()] * 5, follows("ann", "b", ends=True), follows("ann", "f"), follows("ann", "g")])
    fold(one, rest[5:])
    assert names(users_of(one, "ann")) == ["e", "f", "g"]


def test_the_end_of_a_relation_removes_both_ways_and_makes_nothing_known():
    one = folded(has("x", "Ford"), has("y", "Ford"), has("x", "Ford", kind=1, ends=True), has("z", "Opel", ends=True))
    assert entities_of(one, "x") == [] and names(items_of(one, "Ford")) == ["y"]
    assert list(one.items.ids()) == ["x", "y"] and one.relations.targets.get(entity_key("Opel")) is None
    fold(one, [follows("new", "somebody", ends=True, offset=4)])
    assert one.users.get("new") is None and one.events_folded == 5


def test_the_target_not_named_for_longest_makes_room_and_is_counted():
    one = folded(follows("ann", "b"), follows("ann", "c"), follows("eve", "b"), follows("ann", "d"), max_targets=2)
    assert names(users_of(one, "ann")) == ["b", "d"] and names(users_of(one, "eve")) == ["b"]
    assert list(one.relations.targets.ids()) == ["b", "d"] and one.evicted_targets == 1


def test_an_event_id_that_comes_again_and_a_redelivered_record_are_folded_once():
    one = folded(follows("ann", "bob", event_id="1"), follows("ann", "bob", event_id="1", ends=True))
    assert names(users_of(one, "ann")) == ["bob"] and one.duplicates == 1
    fold(one, [follows("ann", "bob", ends=True, offset=1)])
    assert names(users_of(one, "ann")) == ["bob"] and one.redelivered == 1


class Node:
    """Somebody or something that has a row, as long as it has it."""

    def __init__(self) -> None:
        self.edges: dict[str, tuple[Node, tuple]] = {}


class Oracle:
    """What one partition should know: names by when they were seen last, each with its edges."""

    def __init__(self, users: int, items: int, targets: int) -> None:
        self.limits = {"users": users, "items": items, "targets": targets}
        self.known: dict[str, dict[str, Node]] = {sort: {} for sort in self.limits}
        self.evicted = dict.fromkeys(self.limits, 0)

    def see(self, sort: str, name: str, *, create: bool) -> None:
        nodes = self.known[sort]
        if name not in nodes:
            if not create:
                return
            if len(nodes) == self.limits[sort]:
                del nodes[next(iter(nodes))]
                self.evicted[sort] += 1
            nodes[name] = Node()
        nodes[name] = nodes.pop(name)

    def link(self, one: tuple[str, str], other: tuple[str, str], edge: tuple, *, ends: bool) -> None:
        node, neighbor = (self.known[sort].get(name) for sort, name in (one, other))
        if node is None or neighbor is None:
            return
        held = dict(self.edges(node, other[0]))
        held.pop(other[1], None)
        if not ends:
            held[other[1]] = neighbor, edge
        node.edges = dict([*held.items()][-KEPT:])

    def edges(self, node: Node, sort: str) -> list[tuple[str, tuple[Node, tuple]]]:
        return [(name, held) for name, held in node.edges.items() if self.known[sort].get(name) is held[0]]

    def fold(self, line: Line) -> None:
        subject = subject_key(line.user, line.session)
        if line.forget:
            self.known["users"].pop(subject, None)
            self.known["targets"].pop(subject, None)
            return
        target = entity_key(line.target) if line.item else line.target
        named = [("users", subject)] if not (line.target and line.item) else []
        named += [("items", line.item)] if line.item else []
        named += [("targets", target)] if line.target else []
        for sort, name in named:
            self.see(sort, name, create=not line.ends)
        if line.target:
            edge = (line.time_ms, line.kind, line.value)
            self.link(named[0], named[1], edge, ends=line.ends)
            if line.item:
                self.link(named[1], named[0], edge, ends=line.ends)

    def of(self, sort: str, name: str, other: str) -> list[tuple]:
        node = self.known[sort].get(name)
        return [(name, *edge) for name, (_, edge) in self.edges(node, other)] if node else []


USERS, ITEMS, OTHERS = [*"abcd"], [*"vwxyz"], [*"abcdef"]
social = st.builds(
    lambda user, target, **rest: follows(user, target if target != user else "f", **rest),
    st.sampled_from(USERS), st.sampled_from(OTHERS),
    kind=st.integers(0, 2), time_ms=st.integers(0, 99), value=st.sampled_from([1.0, 0.5]),
    ends=st.sampled_from([False, False, True]),
)  # fmt: skip
knowledge = st.builds(
    has, st.sampled_from(ITEMS), st.sampled_from(OTHERS), kind=st.integers(0, 2), time_ms=st.integers(0, 99),
    ends=st.sampled_from([False, False, True]),
)  # fmt: skip
views = st.tuples(st.sampled_from(["", *USERS]), st.just("s"), st.sampled_from(ITEMS)).map(lambda ids: Line(*ids))
forgets = st.sampled_from(["", *USERS]).map(lambda user: Line(user, "s", forget=True))
one_event = st.one_of(social, social, knowledge, knowledge, views, forgets)
# Left alone, the generator makes short logs, in which little is evicted.
logs = (st.lists(one_event, max_size=20) | st.lists(one_event, min_size=30, max_size=60)).map(numbered)


@settings(max_examples=200)
@given(
    log=logs,
    limits=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    lengths=st.lists(st.integers(1, 30), max_size=8),
)
def test_relations_are_those_of_a_plain_dict_whatever_is_evicted_forgotten_or_cut(log, limits, lengths):
    users, items, targets = limits
    one, oracle = new_slice(users, max_items=items, max_targets=targets), Oracle(*limits)
    at = 0
    for length in [*lengths, len(log)]:
        part = log[at : at + length]
        at += len(part)
        if part:
            fold(one, part)
        for line in part:
            oracle.fold(line)
        assert {user: users_of(one, user) for user in USERS} == {
            user: oracle.of("users", user, "targets") for user in USERS
        }
        assert {item: entities_of(one, item) for item in ITEMS} == {
            item: oracle.of("items", item, "targets") for item in ITEMS
        }
        assert {name: items_of(one, name) for name in OTHERS} == {
            name: oracle.of("targets", entity_key(name), "items") for name in OTHERS
        }
        for sort, nodes in (("users", one.users), ("items", one.items), ("targets", one.relations.targets)):
            assert {name for name in nodes.ids() if name is not None} == set(oracle.known[sort])
        assert [one.evicted_users, one.evicted_items, one.evicted_targets] == [*oracle.evicted.values()]
    assert one.events_folded == sum(not line.forget for line in log)


@settings(max_examples=50)
@given(before=logs, after=logs)
def test_forgetting_leaves_no_trace_of_a_user_as_a_subject_or_as_a_target(before, after):
    one = new_slice()
    log = numbered([*before, Line("a", "", forget=True), *after])
    fold(one, log[: len(before) + 1])
    relations = one.relations
    assert "a" not in one.users.ids() and "a" not in relations.targets.ids()
    tables = {name: table.data for name, (table, _) in one.tables().items()}
    for ring in ("user_users", "item_entities", "entity_items"):
        empty = tables[f"{ring}.neighbor"] == 0
        assert not tables[f"{ring}.edge"][empty].any()
    # Each edge that is left in memory belongs to somebody who is known, and leads to somebody else who is.
    left = tables["user_users.neighbor"]
    at = left.nonzero().squeeze(1)
    owners = {one.users.id_of(row) for row in tables["user_users.owner"][at // 8].tolist()}
    led_to = {relations.targets.id_of(row - 1) for row in left[at].tolist()}
    assert owners <= {*one.users.ids()} - {None} and led_to <= {*relations.targets.ids()} - {None}
    assert int((left > 0).sum()) == sum(len(users_of(one, user)) for user in USERS)
    forgotten = slice_digest(one)
    fold(one, log[len(before) : len(before) + 1])  # the record comes again
    assert slice_digest(one) == forgotten


def test_a_bulk_load_of_relations_is_folded_and_an_entity_of_50_000_items_keeps_the_newest():
    one = new_slice(max_items=50_000, max_targets=100_000, relations=32)
    lines = [has(f"i{at}", "all", time_ms=at, offset=at) for at in range(50_000)]
    fold(one, lines)
    assert names(items_of(one, "all")) == [f"i{at}" for at in range(50_000 - 32, 50_000)]
    assert names(entities_of(one, "i7")) == [entity_key("all")]
    assert len(one.relations.targets) == 1 and one.relations.entity_items.blocks - 1 == 4
