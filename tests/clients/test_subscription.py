import threading

import grpc
import pytest
from ousel import Cause, Client, DeadlineExceeded, InvalidArgument, StreamEnded, Unavailable, subscription


def test_a_stream_yields_lists_with_their_causes(engine, client, make_list):
    engine.on_subscribe = [
        (cause, make_list(f"item-{number}"))
        for number, cause in enumerate(["CAUSE_SUBSCRIBED", "CAUSE_MODEL", "CAUSE_CATALOG", "CAUSE_EVENTS"])
    ]
    engine.end_streams = True
    with client.stream("ann", k=5, categories=["fruit"], exclude_item_ids=["kiwi"], exclude_history=True) as updates:
        seen = [(update.cause, update.list.items[0].item_id) for update in updates]
    assert seen == [
        (Cause.SUBSCRIBED, "item-0"),
        (Cause.MODEL, "item-1"),
        (Cause.CATALOG, "item-2"),
        (Cause.EVENTS, "item-3"),
    ]
    query = engine.stream_messages[0].subscribe
    assert (query.user_id, query.k, query.options.exclude_history) == ("ann", 5, True)
    assert (list(query.options.categories), list(query.options.exclude_item_ids)) == (["fruit"], ["kiwi"])


@pytest.mark.parametrize("who", [{"user_id": "ann"}, {"session_id": "tab-1"}])
def test_an_event_sent_on_a_stream_is_the_subscribers(engine, client, who):
    with client.stream(**who) as updates:
        next(updates)
        event_id = updates.track("kiwi", kind="cart", value=3)
        update = next(updates)
    assert (update.cause, update.list.items[0].item_id) == (Cause.EVENTS, "kiwi")
    event = engine.stream_messages[1].event
    assert {"user_id": event.user_id, "session_id": event.session_id} == {"user_id": "", "session_id": ""} | who
    assert (event.event_id, event.kind, event.value) == (event_id, "cart", 3)


def test_an_event_sent_on_a_stream_may_be_of_another_session_of_the_user(engine, client):
    with client.stream("ann") as updates:
        updates.track("kiwi", session_id="tab-1")
        engine.wait_for(lambda: len(engine.stream_messages) == 2)
    event = engine.stream_messages[1].event
    assert (event.user_id, event.session_id) == ("", "tab-1")  # the engine fills in the user


STRANGERS = [
    ({"user_id": "ann"}, {"user_id": "bob"}, "user_id must be None or the subscribed 'ann', got 'bob'"),
    ({"session_id": "tab-1"}, {"user_id": "ann"}, "to sign in, call resubscribe with user_id and session_id"),
    ({"session_id": "tab-1"}, {"user_id": "ann", "session_id": "tab-1"}, "to sign in, call resubscribe"),
    ({"session_id": "tab-1"}, {"session_id": "tab-2"}, "must be None or the subscribed 'tab-1', got 'tab-2'"),
]


@pytest.mark.parametrize(("subscribed", "event", "words"), STRANGERS)
def test_an_event_of_somebody_else_is_refused_here_and_the_stream_goes_on(engine, client, subscribed, event, words):
    with client.stream(**subscribed) as updates:
        next(updates)
        with pytest.raises(InvalidArgument, match=words):
            updates.track("kiwi", **event)
        updates.track("kiwi")
        next(updates)
    assert [message.HasField("event") for message in engine.stream_messages] == [False, True]


def test_an_anonymous_session_signs_in_by_a_new_subscription_and_its_next_event(engine, client):
    with client.stream(session_id="tab-1") as updates:
        next(updates)
        updates.resubscribe("ann", session_id="tab-1")
        updates.track("kiwi")
        engine.wait_for(lambda: len(engine.stream_messages) == 3)
    event = engine.stream_messages[2].event
    assert (event.user_id, event.session_id) == ("ann", "tab-1")


def test_resubscribe_replaces_the_query_on_the_same_stream(engine, client):
    with client.stream("ann") as updates:
        next(updates)
        updates.resubscribe("bob", k=3)
        assert next(updates).cause == Cause.SUBSCRIBED
        updates.track("kiwi")
        next(updates)
        assert engine.open_streams == 1
    assert engine.stream_messages[1].subscribe.user_id == "bob"
    assert engine.stream_messages[1].subscribe.k == 3
    assert engine.stream_messages[2].event.user_id == "bob"


def test_an_event_tracked_while_the_query_is_replaced_is_the_new_subscribers(engine, client, monkeypatch):
    """The engine would take it for an event of somebody else, and end the stream."""
    with client.stream("ann") as updates:
        next(updates)
        put, threads = updates._outbox.put, []

        def put_and_track(message, timeout_s):
            done = put(message, timeout_s)
            if message.HasField("subscribe"):
                threads.append(threading.Thread(target=updates.track, args=("kiwi",)))
                threads[0].start()
                threads[0].join(0.1)  # It may go on only once the new query is in place.
            return done

        monkeypatch.setattr(updates._outbox, "put", put_and_track)
        updates.resubscribe("bob")
        threads[0].join(10)
        engine.wait_for(lambda: len(engine.stream_messages) == 3)
    assert engine.stream_messages[2].event.user_id == "bob"


def test_leaving_a_stream_ends_it_at_the_engine(engine, client):
    with client.stream("ann") as updates:
        next(updates)
    engine.wait_for(lambda: engine.open_streams == 0)
    assert list(updates) == []
    with pytest.raises(StreamEnded):
        updates.track("kiwi")


def test_close_from_another_thread_ends_a_waiting_reader(engine, client):
    updates = client.stream("ann")
    next(updates)
    closer = threading.Timer(0.05, updates.close)
    closer.start()
    assert list(updates) == []  # waits for a second list until closed
    closer.join()


def test_closing_the_client_ends_its_streams(engine, client):
    updates = client.stream("ann")
    next(updates)
    client.close()
    with pytest.raises(StreamEnded):
        next(updates)


def test_a_stream_that_the_engine_ends_takes_no_more_events(engine, client):
    engine.end_streams = True
    updates = client.stream("ann")
    assert len(list(updates)) == 1
    with pytest.raises(StreamEnded):
        updates.track("kiwi")


def test_a_stream_that_fails_raises_the_kind_of_its_status(engine, client):
    engine.stream_failure = (grpc.StatusCode.INVALID_ARGUMENT, "event.kind must be known, got 'hum'")
    with client.stream("ann") as updates:
        next(updates)
        updates.track("kiwi", kind="hum")
        with pytest.raises(InvalidArgument, match="got 'hum'"):
            next(updates)


def test_a_stream_that_is_not_to_be_resumed_fails_and_the_client_finds_the_engine_again(engine, restart):
    with Client(engine.address, resume_s=0) as client:
        with client.stream("ann") as updates:
            next(updates)
            restart(engine)
            with pytest.raises(Unavailable, match=engine.address):
                next(updates)
        assert client.recommend("ann").items  # the retries outlast the reconnect


@pytest.mark.parametrize("end", ["closed here", "ended by the engine", "client closed"])
def test_no_stream_thread_stays_behind(engine, client, monkeypatch, end):
    senders = set()
    take = subscription._Messages.__next__

    def recording_take(outbox):
        senders.add(threading.current_thread())
        return take(outbox)

    monkeypatch.setattr(subscription._Messages, "__next__", recording_take)
    engine.end_streams = end == "ended by the engine"
    updates = client.stream("ann")
    next(updates)
    if end == "closed here":
        updates.close()
    elif end == "client closed":
        client.close()
    (sender,) = senders
    sender.join(10)
    assert not sender.is_alive()


def test_a_stream_refuses_events_when_the_engine_takes_none(engine, monkeypatch):
    monkeypatch.setattr(subscription, "_MAX_UNSENT", 4)
    engine.deaf = True
    with Client(engine.address, timeout_s=0.2) as client, client.stream("ann") as updates:
        with pytest.raises(DeadlineExceeded, match=r"took no message of this stream for 0\.2 s"):
            for _ in range(1000):  # more than gRPC itself buffers
                updates.track("kiwi", attributes={"note": "x" * 100_000})
        assert next(updates).cause == Cause.SUBSCRIBED  # the stream itself goes on
