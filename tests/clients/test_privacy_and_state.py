"""The blocking client's calls for privacy and operation."""

from datetime import UTC, datetime

import grpc
import pytest
from ousel import (
    Client,
    DeadlineExceeded,
    Exported,
    Forgotten,
    HeldSubject,
    InvalidArgument,
    OuselError,
    PartitionDigest,
    Position,
    RememberedEvent,
    RememberedRelation,
    StateDigest,
    Subject,
)


def test_forget_user_sends_who_and_returns_what_was_written(engine, client):
    engine.forgotten.subjects.add(user_id="ann")
    engine.forgotten.subjects.add(session_id="tab-1")
    engine.forgotten.positions.add(topic="ousel.events", partition=2, offset=7)
    assert client.forget_user("ann") == Forgotten(
        subjects=(Subject("ann", ""), Subject("", "tab-1")),
        positions=(Position("ousel.events", 2, 7),),
        partitions=(0, 2),
    )
    client.forget_user(session_id="tab-1")
    assert [(request.user_id, request.session_id) for request in engine.requests] == [("ann", ""), ("", "tab-1")]


def test_export_user_returns_all_that_is_held(engine, client):
    engine.export.known = True
    held = engine.export.subjects.add(partition=2, session_id="tab-1", sessions=4, named_by_item_ids=["apple", "kiwi"])
    event = held.history.add(item_id="apple", kind="cart", value=2.5, session=3)
    event.time.FromMilliseconds(1_700_000_000_250)
    when = datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)
    remembered = RememberedEvent("apple", "cart", when, 2.5, 3)
    held.named_by_users = 5
    relation = held.relations.add(user_id="bob", kind="friend", value=0.5)
    relation.time.FromMilliseconds(1_700_000_000_250)
    related = RememberedRelation("bob", "friend", when, 0.5)
    subject = HeldSubject(2, "tab-1", (remembered,), 4, ("apple", "kiwi"), (related,), 5)
    assert client.export_user("ann") == Exported(known=True, subjects=(subject,), partitions=(0, 2))
    client.export_user(session_id="tab-1")
    assert [(request.user_id, request.session_id) for request in engine.requests] == [("ann", ""), ("", "tab-1")]


def test_an_export_may_be_larger_than_grpcs_own_limit(engine, client):
    held = engine.export.subjects.add(named_by_item_ids=[f"item-{number:08d}" for number in range(400_000)])
    assert engine.export.ByteSize() > 5 * 2**20
    assert client.export_user("ann").subjects[0].named_by_item_ids == tuple(held.named_by_item_ids)


def test_an_export_of_nothing_says_where_was_looked(client):
    assert client.export_user("ann") == Exported(known=False, subjects=(), partitions=(0, 2))


@pytest.mark.parametrize("call", [lambda c: c.forget_user("\udcff"), lambda c: c.export_user(session_id="\udcff")])
def test_a_user_that_no_message_can_carry_is_refused_here(engine, client, call):
    with pytest.raises(InvalidArgument, match="surrogates not allowed"):
        call(client)
    assert engine.requests == []


def test_get_digest_returns_every_partitions(client):
    assert client.get_digest() == StateDigest(
        partitions=(
            PartitionDigest("a1", Position("ousel.events", 0, 9), 8),
            PartitionDigest("b2", Position("ousel.events", 2, -1), 0),
        ),
        catalog_digest="c3",
        catalog_reflects=(Position("ousel.items", 0, 3),),
    )


def test_take_snapshot_returns_what_is_safe(client):
    assert client.take_snapshot() == (Position("ousel.events", 2, 7),)


@pytest.mark.parametrize("call", [lambda c, s: c.get_digest(timeout_s=s), lambda c, s: c.take_snapshot(timeout_s=s)])
def test_calls_over_the_whole_state_have_a_time_limit_of_their_own(engine, call):
    engine.hang = True
    with Client(engine.address, timeout_s=30) as client, pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
        call(client, 0.1)


def test_an_engine_without_snapshots_says_what_to_set(engine, client):
    engine.failures.append((grpc.StatusCode.FAILED_PRECONDITION, "snapshot.enabled must be true"))
    with pytest.raises(OuselError, match=r"snapshot\.enabled must be true") as caught:
        client.take_snapshot()
    assert caught.value.code == "FAILED_PRECONDITION"
