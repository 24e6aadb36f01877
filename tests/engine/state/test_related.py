"""Friends, and items with the same entities, read from several partitions."""

from __future__ import annotations

from dataclasses import replace

import torch

from engine.config import EventsConfig, StateConfig
from engine.events.batch import CatalogItem
from engine.state.copying import StateCopy
from engine.state.digest import state_digest
from engine.state.export import RememberedRelation, export_subject
from engine.state.state import State
from tests.engine.logs import Line, batch, numbered

EVENTS = EventsConfig(relations={"follows": 1.0, "friend": 2.0, "has": 1.0, "blocks": 0.0})
CONFIG = StateConfig(max_users=60, max_items=9, max_targets=9, content_dim=8, relations=4)
FRIEND, BLOCKS = 1, 3


def folded(*lines: Line, partitions: int = 3) -> State:
    state = State(CONFIG, EVENTS, partitions=partitions)
    state.fold(batch(numbered(lines)))
    return state


def view(user: str, item: str, partition: int = 0, time_ms: int = 0) -> Line:
    return Line(user, "", item, partition=partition, time_ms=time_ms)


def follows(user: str, target: str, partition: int = 0, **rest) -> Line:
    return Line(user, target=target, partition=partition, **rest)


def has(item: str, entity: str, partition: int = 0, **rest) -> Line:
    return Line(item=item, target=entity, partition=partition, **rest)


def friends(state: State, user: str, n: int | None = None) -> list[str | None]:
    found = []
    for row in state.relations.friends(user, n).tolist():
        _, placed, local = state.home_of(row)
        found.append(placed.slice.users.id_of(local))
    return found


def alike(state: State, *items: str, n: int = 99) -> list[str]:
    rows = state.items.find(items)
    return [state.items.id_of(row) for row in state.relations.items_like(rows, n).tolist()]


def test_friends_are_found_wherever_their_events_are_and_who_is_unknown_is_left_out():
    state = folded(view("bob", "x", 1), view("cid", "x", 2), *(follows("ann", name) for name in ("bob", "dan", "cid")))
    assert friends(state, "ann") == ["cid", "bob"]
    assert friends(state, "ann", 1) == ["cid"]
    assert friends(state, "bob") == [] and friends(state, "nobody") == []
    state.fold(batch([view("dan", "x", 2)._replace(offset=1)]))
    assert friends(state, "ann") == ["cid", "dan", "bob"]


def test_a_friend_in_several_partitions_has_the_row_of_the_newest_event():
    state = folded(view("bob", "x", 1, 5), view("bob", "y", 2, 9), follows("ann", "bob"))
    (row,) = state.relations.friends("ann").tolist()
    assert state.home_of(row)[0] == 2


def test_the_strongest_friend_comes_first_and_a_kind_that_weighs_nothing_is_not_followed():
    known = [view(name, "x") for name in "bcde"]
    state = folded(
        *known, follows("ann", "b", kind=FRIEND), follows("ann", "c", value=5.0), follows("ann", "d"),
        follows("ann", "e", kind=BLOCKS, value=9.0),
    )  # fmt: skip
    assert friends(state, "ann") == ["c", "b", "d"]


def test_an_item_of_the_catalog_is_ranked_alike_whether_its_relation_comes_with_its_record_or_later():
    """A restart ranks all items anew; it must not find another order than the one before it."""
    items, relation = [CatalogItem("x"), CatalogItem("y")], batch(numbered([has("y", "maker")]))
    together, later = folded(), folded()
    together.fold(replace(relation, items=items))
    later.fold(batch([], items))
    later.fold(relation)
    scores = [state.popularity.score[state.items.find(["x", "y"])].tolist() for state in (together, later)]
    assert scores[0] == scores[1]
    assert scores[0][0] == 0 < scores[0][1]


def test_a_relation_said_in_two_partitions_is_one():
    state = folded(
        view("bob", "x"), view("cid", "x"), follows("ann", "bob", time_ms=1), follows("ann", "cid", time_ms=2),
        follows("ann", "bob", 1, time_ms=3, kind=FRIEND),
    )  # fmt: skip
    assert friends(state, "ann") == ["bob", "cid"]


def test_items_that_share_an_entity_come_newest_first_from_all_partitions_and_once():
    state = folded(
        has("x", "Ford", 0, time_ms=1), has("y", "Ford", 1, time_ms=9), has("z", "Ford", 2, time_ms=5),
        has("x", "red", 1, time_ms=2), has("z", "red", 0, time_ms=3), has("w", "Opel", 0, time_ms=9),
    )  # fmt: skip
    assert alike(state, "x") == ["y", "z"] and alike(state, "x", n=1) == ["y"]
    assert alike(state, "w") == [] and alike(state, "x", "w", "y") == ["z"]
    state.fold(batch([has("y", "Ford", 1, ends=True, offset=2)]))
    assert alike(state, "x") == ["z"] and alike(state, "y") == []


def test_an_item_that_only_a_relation_names_has_a_row_and_is_in_the_ready_list():
    state = folded(has("x", "Ford"))
    assert [state.items.id_of(row) for row in state.popularity.top()] == ["x"]


def test_where_nobody_is_related_there_is_nothing_to_ask():
    state = folded(view("ann", "x"))
    assert not state.relations
    state.fold(batch([follows("ann", "bob", offset=1)]))
    assert state.relations


def test_a_batch_reports_its_relations_apart_and_the_users_that_have_new_ones():
    state = State(CONFIG, EVENTS, partitions=3)
    lines = numbered([view("ann", "x"), follows("ann", "bob"), has("z", "Ford", 1), follows("cid", "ann", 1)])
    got = state.fold(batch(lines))
    assert got.event.tolist() == [0] and sorted(got.relation.tolist()) == [1, 2, 3]
    assert sorted(got.stale_users.tolist()) == sorted(state.find_users(["ann", "cid"]))
    assert sorted(got.new_items.tolist()) == sorted(state.items.find(["x", "z"]).tolist())


def test_an_export_shows_the_relations_of_a_user_and_how_many_name_it_in_each_partition():
    state = folded(
        view("ann", "x"), follows("ann", "bob", kind=FRIEND, time_ms=7, value=2.0), follows("cid", "ann"),
        follows("dan", "ann"), follows("eve", "ann", 2), follows("eve", "bob", 2),
    )  # fmt: skip
    held, elsewhere = export_subject(state, "ann")
    assert held.relations == (RememberedRelation("bob", FRIEND, 7, 2.0),) and held.named_by_users == 2
    assert len(held.history) == 1
    assert (elsewhere.partition, elsewhere.history, elsewhere.named_by_users) == (2, (), 1)
    assert [(one.partition, one.named_by_users) for one in export_subject(state, "bob")] == [(0, 1), (2, 1)]
    assert export_subject(state, "nobody") == ()


def test_forgetting_in_every_partition_leaves_nobody_related_to_the_user():
    state = folded(view("ann", "x"), follows("bob", "ann"), follows("cid", "ann", 1), follows("ann", "bob"))
    ends = {partition: state.slices[partition].slice.position for partition in (0, 1)}
    state.fold(batch([Line("ann", forget=True, partition=at, offset=offset) for at, offset in ends.items()]))
    assert export_subject(state, "ann") == () and friends(state, "bob") == friends(state, "cid") == []


def digest_of(state: State) -> dict[int, str]:
    copy = StateCopy(state, 4096)
    while not copy.step():
        pass
    return dict(state_digest(copy.saved(), CONFIG, EVENTS).slices)


def test_a_digest_says_every_relation_and_nothing_of_rows():
    base = [view("ann", "x"), view("bob", "y")]
    plain = digest_of(folded(*base, follows("ann", "bob"), has("x", "Ford")))
    assert digest_of(folded(*base, follows("ann", "bob"), has("x", "Ford"))) == plain
    for other in (
        [follows("ann", "cid"), has("x", "Ford")],
        [follows("ann", "bob", kind=FRIEND), has("x", "Ford")],
        [follows("ann", "bob"), has("x", "Opel")],
        [follows("ann", "bob"), has("y", "Ford")],
        [follows("ann", "bob", value=2.0), has("x", "Ford")],
    ):
        assert digest_of(folded(*base, *other)) != plain
    # What somebody forgotten leaves behind is another numbering of the same rows.
    past = [follows("zoe", "yan"), Line("zoe", forget=True), Line("yan", forget=True)]
    lines = [view("ann", "x"), view("bob", "y"), follows("ann", "bob"), has("x", "Ford")]
    two = [folded(*past, *lines), folded(view("zoe", "x"), *past[1:], *lines)]
    assert [names.slices[0].slice.relations.targets.get("bob") for names in two] == [0, 0]
    reused = [state.slices[0].slice.users.get("ann") for state in two]
    assert reused == [0, 0]


def test_a_user_with_nothing_but_relations_has_a_digest_too():
    assert len(digest_of(folded(follows("ann", "bob")))) == 1


def test_a_user_of_relations_alone_has_an_empty_history():
    state = folded(follows("ann", "bob"))
    assert not state.histories(state.find_users(["ann"])).mask.any()
    assert torch.equal(state.users(), torch.tensor(state.find_users(["ann"])))
