"""What a client that is closed, or whose event loop is gone, says: its own error, whatever is asked of it."""

import asyncio
import gc
import inspect
import threading

import grpc
import pytest
from ousel import AsyncClient, AsyncSubscription, Client, InvalidArgument, OuselError, Subscription

from tests.clients import surface


def _asked(kind):
    """Each public method but `close`, as a function that calls it on an object of the class."""
    methods = {name: method for name, method in surface.methods(kind).items() if name not in ("close", "__init__")}
    return [pytest.param(_call_of(name, surface.needed(method)), id=name) for name, method in methods.items()]


def _call_of(name, given):
    return lambda target: getattr(target, name)(**given)


async def _ask(call, target):
    found = call(target)
    return await found if inspect.isawaitable(found) else found


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("call", _asked(Client))
def test_a_closed_client_says_so(engine, call, used):
    client = Client(engine.address)
    if used:
        client.status()
    client.close()
    client.close()
    with pytest.raises(OuselError, match="the client is closed; make a new one") as failed:
        call(client)
    assert failed.value.code == "CANCELLED"


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("call", _asked(AsyncClient))
async def test_a_closed_async_client_says_so(engine, call, used):
    client = AsyncClient(engine.address)
    if used:
        await client.status()
    await client.close()
    await client.close()
    with pytest.raises(OuselError, match="the client is closed; make a new one") as failed:
        await _ask(call, client)
    assert failed.value.code == "CANCELLED"


@pytest.mark.parametrize("end", ["stream", "client"])
@pytest.mark.parametrize("call", _asked(Subscription))
def test_a_stream_that_is_over_takes_no_message(engine, client, call, end):
    updates = client.stream("ann")
    next(updates)
    (updates if end == "stream" else client).close()
    with pytest.raises(OuselError):
        call(updates)
    updates.close()


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("end", ["stream", "client"])
@pytest.mark.parametrize("call", _asked(AsyncSubscription))
async def test_an_async_stream_that_is_over_takes_no_message(engine, call, end, opened):
    async with AsyncClient(engine.address) as client:
        updates = client.stream("ann")
        if opened:
            await anext(updates)
        await (updates if end == "stream" else client).close()
        with pytest.raises(OuselError):
            await _ask(call, updates)
        await updates.close()


async def test_closing_the_client_ends_what_waits_for_an_answer_with_its_own_error(engine):
    engine.hang = True
    client = AsyncClient(engine.address)
    call = asyncio.create_task(client.recommend("ann"))
    await asyncio.to_thread(engine.wait_for, lambda: engine.requests)
    await client.close()
    with pytest.raises(OuselError, match="the client is closed; make a new one"):
        await call


def test_closing_the_client_in_another_thread_ends_what_waits_for_an_answer(engine):
    engine.hang = True
    client, failed = Client(engine.address), []

    def ask():
        try:
            client.recommend("ann", timeout_s=60)
        except BaseException as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    engine.wait_for(lambda: engine.requests)
    client.close()
    asking.join(30)
    assert [(type(error), str(error)) for error in failed] == [(OuselError, "the client is closed; make a new one")]


async def test_closing_the_client_ends_a_waiting_reader_of_a_stream_with_its_own_error(engine):
    client = AsyncClient(engine.address)
    updates = client.stream("ann")
    await anext(updates)
    reader = asyncio.create_task(anext(updates))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(OuselError):
        await asyncio.wait_for(reader, 30)


@pytest.mark.parametrize("wait", ["cancel", "timeout"])
@pytest.mark.parametrize("of_stream", [True, False])
async def test_a_cancelled_task_is_cancelled(engine, wait, of_stream):
    async with AsyncClient(engine.address, timeout_s=60) as client:
        updates = client.stream("ann")
        await anext(updates)
        engine.hang = True
        asking = asyncio.ensure_future(anext(updates) if of_stream else client.recommend("ann"))
        if not of_stream:
            await asyncio.to_thread(engine.wait_for, lambda: engine.requests)
        await asyncio.sleep(0)
        if wait == "cancel":
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert asking.cancelled()
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asking, 0.01)


@pytest.mark.parametrize("call", _asked(AsyncClient))
def test_a_client_whose_event_loop_is_gone_says_so(engine, call):
    client = AsyncClient(engine.address)
    asyncio.run(_ask(lambda it: it.status(), client))

    async def ask_again():
        found = call(client)
        await (anext(found) if isinstance(found, AsyncSubscription) else found)

    with pytest.raises(OuselError, match="belongs to the event loop that it was first used in"):
        asyncio.run(ask_again())
    asyncio.run(client.close())


@pytest.mark.parametrize("call", [*_asked(AsyncSubscription), pytest.param(anext, id="anext")])
def test_a_stream_whose_event_loop_is_gone_says_so(engine, call):
    client = AsyncClient(engine.address)
    updates = client.stream("ann")
    asyncio.run(_ask(anext, updates))
    with pytest.raises(OuselError):
        asyncio.run(_ask(call, updates))
    asyncio.run(_ask(lambda it: it.close(), updates))
    asyncio.run(client.close())


def test_a_stream_made_outside_of_an_event_loop_opens_in_the_one_that_reads_it(engine):
    client = AsyncClient(engine.address)
    updates = client.stream("ann")

    async def read():
        async with client:
            return await anext(updates)

    assert asyncio.run(read()).list.items


def test_wrong_values_are_told_by_a_closed_client_too(engine):
    client = Client(engine.address)
    client.close()
    with pytest.raises(InvalidArgument, match="item_id must be a string"):
        client.track(7, "ann")


async def test_a_stream_that_is_dropped_without_being_closed_ends_at_the_engine(engine):
    async with AsyncClient(engine.address) as client:
        updates = client.stream("ann")
        await anext(updates)
        del updates
        await asyncio.to_thread(engine.wait_for, lambda: engine.open_streams == 0)


async def test_a_client_and_a_stream_may_be_closed_from_another_event_loop(engine):
    client = AsyncClient(engine.address)
    for closing in (client.stream("ann"), client):
        updates = closing if closing is not client else client.stream("ann")
        await anext(updates)
        await asyncio.to_thread(asyncio.run, closing.close())
        await asyncio.to_thread(engine.wait_for, lambda: engine.open_streams == 0)
        with pytest.raises(OuselError):
            await updates.track("kiwi")


async def _left(client):
    await anext(client.stream("ann"))


async def _read_in_part(client):
    async for _ in client.stream("ann"):
        break


async def _timed_out(client):
    updates = client.stream("ann")
    await anext(updates)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(updates), 0.001)


async def _answered(client):
    await client.recommend("ann")


async def _too_late(client):
    with pytest.raises(OuselError):
        await client.track("apple", "ann", timeout_s=0.001)


async def _cancelled(client):
    asking = asyncio.ensure_future(client.track("apple", "ann", timeout_s=60))
    await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("use", [_left, _read_in_part, _timed_out, _answered, _too_late, _cancelled])
async def test_no_call_is_kept_however_it_is_left(engine, use):
    """From grpcio 1.83 on, nothing collects a call that is left while it is open (grpc/grpc#43462)."""
    engine.hang = use in (_too_late, _cancelled)
    async with AsyncClient(engine.address) as client:
        async with asyncio.timeout(60):  # The engine's threads are few, and streams that stay open take them.
            for _ in range(20):
                await asyncio.gather(*(use(client) for _ in range(5)))
        deadline_s = asyncio.get_running_loop().time() + 30
        while _open_calls() > 5 and asyncio.get_running_loop().time() < deadline_s:
            gc.collect()
            await asyncio.sleep(0.01)
        assert _open_calls() <= 5


def _open_calls() -> int:
    return sum(issubclass(type(found), grpc.aio.Call) for found in gc.get_objects())
