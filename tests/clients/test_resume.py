"""A stream whose engine goes away goes on at the same one, or at another, from where it was; in both clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from ousel import AsyncClient, Client, InvalidArgument, Position, RecommendationList, ResourceExhausted, Unavailable
from ousel.resume import MAX_EVENTS, Message, Progress
from ousel.types import Origin
from ousel.v1 import event_pb2, recommender_service_pb2


class Stream:
    """A stream of either client, for a test that awaits."""

    def __init__(self, updates: Any) -> None:
        self.updates = updates

    async def items(self) -> list[str]:
        """The next list."""
        async with asyncio.timeout(20):
            update = await (anext(self.updates) if hasattr(self.updates, "__anext__") else self._call("__next__"))
        return [item.item_id for item in update.list.items]

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        found = getattr(self.updates, name)
        if asyncio.iscoroutinefunction(found):
            return await found(*args, **kwargs)
        return await self._call(name, *args, **kwargs)

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(_no_stop_iteration, getattr(self.updates, name), *args, **kwargs)


def _no_stop_iteration(function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration:
        raise StopAsyncIteration from None  # A future can't hold the other one.


@pytest.fixture(params=["blocking", "asyncio"])
def opened(request: pytest.FixtureRequest) -> Any:
    """Opens a stream of either client at some addresses."""

    @asynccontextmanager
    async def open_stream(address: Any, resume_s: float = 60.0, **query: Any) -> AsyncIterator[Stream]:
        query = {"user_id": "ann"} | query
        if request.param == "asyncio":
            async with AsyncClient(address, resume_s=resume_s) as client, client.stream(**query) as updates:
                yield Stream(updates)
        else:
            with Client(address, resume_s=resume_s) as client, client.stream(**query) as updates:
                yield Stream(updates)

    return open_stream


def at(offset: int, *item_ids: str, make_list: Any) -> Any:
    made = make_list(*item_ids)
    made["reflects"][0]["offset"] = offset
    return made


async def test_a_stream_goes_on_when_its_engine_has_started_again_with_its_latest_query(engine, opened, restart):
    async with opened(engine.address, k=5) as stream:
        assert await stream.items() == ["apple", "bread"]
        await stream.call("resubscribe", "bob", k=3)
        await stream.items()
        again = await asyncio.to_thread(restart, engine)
        assert await stream.items() == ["apple", "bread"]
        assert [message.subscribe.user_id for message in again.stream_messages] == ["bob"]
        assert again.stream_messages[0].subscribe.k == 3
        await stream.call("track", "kiwi")
        assert await stream.items() == ["kiwi"]


async def test_events_of_late_are_sent_again_by_their_ids_and_those_sent_meanwhile_follow(engine, opened, restart):
    async with opened(engine.address) as stream:
        await stream.items()
        first = await stream.call("track", "kiwi")
        assert await stream.items() == ["kiwi"]
        await asyncio.to_thread(engine.stop)
        second = await stream.call("track", "lime")
        again = await asyncio.to_thread(restart, engine)
        assert await stream.items() == ["apple", "bread"]
        assert [await stream.items() for _ in range(2)] == [["kiwi"], ["lime"]]
        assert [message.event.event_id for message in again.stream_messages[1:]] == [first, second]


async def test_events_of_the_subscriber_before_are_not_sent_again_as_another_ones(engine, opened, restart):
    async with opened(engine.address, user_id=None, session_id="tab-1") as stream:
        await stream.items()
        await stream.call("track", "kiwi")
        await stream.items()
        await stream.call("resubscribe", "ann", session_id="tab-1")
        await stream.items()
        again = await asyncio.to_thread(restart, engine)
        await stream.items()
        await stream.call("track", "lime")
        await stream.items()
        assert [message.event.item_id for message in again.stream_messages] == ["", "lime"]


async def test_a_list_of_an_engine_that_is_behind_is_passed_over(engine, opened, restart, make_list):
    engine.on_subscribe = [("CAUSE_SUBSCRIBED", at(50, "new", make_list=make_list))]
    async with opened(engine.address) as stream:
        assert await stream.items() == ["new"]
        await asyncio.to_thread(engine.stop)
        again = await asyncio.to_thread(restart, engine)
        again.on_subscribe = [
            ("CAUSE_SUBSCRIBED", at(49, "old", make_list=make_list)),
            ("CAUSE_EVENTS", at(51, "newer", make_list=make_list)),
        ]
        assert await stream.items() == ["newer"]


async def test_a_stream_moves_to_another_engine(engine, opened, restart):
    other = restart(engine)  # on the port of the first one, which is over
    third = type(other)()
    try:
        async with opened([other.address, third.address]) as stream:
            await stream.items()
            first, second = (other, third) if other.open_streams else (third, other)
            await asyncio.to_thread(first.stop)
            assert await stream.items() == ["apple", "bread"]
            assert second.open_streams == 1
    finally:
        third.stop()


async def test_a_stream_gives_up_when_its_time_is_over(engine, opened):
    async with opened(engine.address, resume_s=0.3) as stream:
        await stream.items()
        await asyncio.to_thread(engine.stop)
        with pytest.raises(Unavailable, match=engine.address):
            await stream.items()


async def test_a_stream_that_never_had_a_list_fails_soon(opened, closed_port):
    with pytest.raises(Unavailable):
        async with opened(f"127.0.0.1:{closed_port}") as stream:
            await stream.items()


async def test_a_refusal_ends_a_stream(engine, opened):
    engine.stream_failure = (grpc.StatusCode.INVALID_ARGUMENT, "no")
    async with opened(engine.address) as stream:
        await stream.items()
        await stream.call("track", "kiwi")
        with pytest.raises(InvalidArgument):
            await stream.items()


def test_closing_ends_the_wait_for_an_engine(engine):
    with Client(engine.address) as client:
        updates = client.stream("ann")
        next(updates)
        engine.stop()
        closer = threading.Timer(0.3, updates.close)
        closer.start()
        assert list(updates) == []
        closer.join()


def received(offset: int) -> RecommendationList:
    return RecommendationList((), Origin.MODEL, True, 3, (Position("ousel.events", 0, offset),))


def progressed(limit_s: float = 60.0) -> Progress:
    progress = Progress(limit_s)
    progress.passed(Message(subscribe=recommender_service_pb2.Query(user_id="ann")))
    assert progress.is_news(received(7))
    return progress


def test_the_wait_is_what_the_engine_wishes_or_grows_and_is_drawn_by_chance():
    hinted = Unavailable("away")
    hinted.retry_after_s = 0.07
    assert progressed().wait_s(hinted) == 0.07
    waits = [[progress.wait_s(Unavailable("away")) for _ in range(9)] for progress in [progressed() for _ in range(50)]]
    for tried, waited in enumerate(zip(*waits, strict=True)):
        most_s = min(5.0, 0.2 * 2**tried)
        assert 0 <= min(waited) < most_s / 3 < max(waited) <= most_s


def test_a_stream_refused_for_want_of_room_tries_again_only_where_it_had_a_place():
    progress = progressed()
    assert not progress.may_resume(ResourceExhausted("full"))
    progress.wait_s(Unavailable("away"))
    assert progress.may_resume(ResourceExhausted("full"))


def test_what_is_behind_is_passed_over_for_a_time_and_not_for_ever(monkeypatch):
    progress = progressed(limit_s=10.0)
    assert progress.is_news(received(3))  # The engine is the same: it knows what it does.
    now_s = 1000.0
    monkeypatch.setattr("ousel.resume.time.monotonic", lambda: now_s)
    progress.wait_s(Unavailable("away"))
    assert not progress.is_news(received(2))
    now_s += 11
    assert progress.is_news(received(0))


def test_events_that_are_sent_again_are_bounded_in_number_and_age(monkeypatch):
    progress = progressed()
    for number in range(MAX_EVENTS + 5):
        progress.passed(Message(event=event_pb2.Event(item_id=str(number))))
    assert progress.is_full
    assert [message.event.item_id for message in progress.opening()][:2] == ["", "5"]
    assert len(progress.opening()) == 1
    now_s = 1000.0
    monkeypatch.setattr("ousel.resume.time.monotonic", lambda: now_s)
    progress.passed(Message(event=event_pb2.Event(item_id="old")))
    now_s += 11
    progress.passed(Message(event=event_pb2.Event(item_id="late")))
    assert [message.event.item_id for message in progress.opening()] == ["", "late"]
