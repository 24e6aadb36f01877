"""Whatever a caller gives, a client answers, or raises its own error by the name of the field."""

import inspect
import itertools
from datetime import UTC, datetime

import pytest
from ousel import AsyncClient, AsyncSubscription, Client, InvalidArgument, OuselError, Subscription

from tests.clients import surface


def _names(cases):
    return {(kind, name) for kind, name, _, _ in cases}


def test_all_public_methods_with_parameters_are_tried():
    with_parameters = {
        (kind, name)
        for kind in surface.CLASSES
        for name, method in surface.methods(kind).items()
        if len(inspect.signature(method).parameters) > 1
    }
    assert _names(surface.cases(surface.WRONG)) == with_parameters
    assert len(with_parameters) == 38


@pytest.mark.parametrize(("kind", "method"), sorted(_names(surface.cases(surface.WRONG)), key=str))
async def test_a_wrong_value_is_refused_by_the_name_of_its_field_and_nothing_is_sent(engine, kind, method):
    accepted = []
    async with _Caller(engine, kind) as caller:
        for _, _, parameter, value in _of(surface.cases(surface.WRONG), kind, method):
            try:
                await caller(method, **{parameter: value})
                accepted.append((parameter, type(value)))
            except InvalidArgument as error:
                assert parameter in str(error), f"{error} does not name {parameter}"
                str(error).encode()
    assert not accepted, f"{method} takes wrong values: {accepted}"
    assert engine.requests == []
    assert not any(message.HasField("event") for message in engine.stream_messages)


@pytest.mark.parametrize(("kind", "method"), sorted(_names(surface.cases(surface.RIGHT)), key=str))
async def test_a_right_value_is_taken(engine, kind, method):
    async with _Caller(engine, kind) as caller:
        for _, _, parameter, value in _of(surface.cases(surface.RIGHT), kind, method):
            given = {parameter: value}
            if method == "__init__" and parameter == "address":
                given = {"address": engine.address}
            if kind in (Subscription, AsyncSubscription) and parameter == "user_id" and method == "track":
                given = {"user_id": "ann"}
            await caller(method, **given)


@pytest.mark.parametrize("limit_s", [0, -1, -(10.0**9)])
def test_a_time_limit_that_is_over_already_ends_the_call_by_it(client, limit_s):
    with pytest.raises(OuselError) as failed:
        client.recommend("ann", timeout_s=limit_s)
    assert failed.value.code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    "address",
    ["", " ", "ann:secret@host:1", "http://127.0.0.1:50051", "HTTPS://host", "grpc://host:1", "host:1 ", "a\0b"],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_that_is_none_is_refused(kind, address):
    with pytest.raises(InvalidArgument, match="address must be"):
        kind(address)


@pytest.mark.parametrize(
    "address", ["::::", "127.0.0.1:99999999", "x y", "unix:///no/such", "dns:///", "host:port", "%%"]
)
async def test_an_address_where_nothing_can_be_is_not_available(address):
    with Client(address, timeout_s=0.2) as client, pytest.raises(OuselError):
        client.recommend("ann")
    async with AsyncClient(address, timeout_s=0.2) as client:
        with pytest.raises(OuselError):
            await client.recommend("ann")


def test_an_answer_that_can_not_be_read_is_the_clients_own_error(engine, client):
    engine.status.snapshot_time.seconds = 10**15
    with pytest.raises(OuselError, match=r"can't read the answer of the engine at"):
        client.status()


def test_a_wrong_value_is_shown_with_its_type_and_cut(client):
    with pytest.raises(InvalidArgument, match=r"^item_id must be a string, got 123 \(int\)$"):
        client.track(123, "ann")
    with pytest.raises(InvalidArgument, match=r"^attributes\['price'\] must be a string, got 3 \(int\)$"):
        client.track("apple", "ann", attributes={"price": 3})
    with pytest.raises(InvalidArgument, match=r"^exclude_item_ids\[1\] must be a string, got 2 \(int\)$"):
        client.recommend("ann", exclude_item_ids=["a", 2])
    with pytest.raises(InvalidArgument) as failed:
        client.track(["x" * 10_000], "ann")
    assert len(str(failed.value)) < 150


def test_an_error_of_the_callers_own_generator_is_left_as_it_is(client):
    with pytest.raises(KeyError):
        client.recommend("ann", categories=({}["none"] for _ in range(1)))


def test_times_reach_the_engine_as_they_are(engine, client):
    for time in (datetime(2024, 1, 1, 12, 30, 0, 250_000, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)):
        client.track("apple", "ann", time=time)
        assert engine.requests[-1].event.time.ToDatetime(UTC) == time


def _of(cases, kind, method):
    return [case for case in cases if case[:2] == (kind, method)]


class _Caller:
    """Calls a method of a client or of one of its streams, with what it needs beside what is given."""

    def __init__(self, engine, kind):
        self._engine, self._kind = engine, kind

    async def __aenter__(self):
        self._blocking, self._async = Client(self._engine.address), AsyncClient(self._engine.address)
        return self

    async def __aexit__(self, *error):
        self._blocking.close()
        await self._async.close()

    async def __call__(self, method, **given):
        if method == "__init__":
            made = self._kind(**given)
            await _result(made.close())
            return
        target = {
            Client: lambda: self._blocking,
            AsyncClient: lambda: self._async,
            Subscription: lambda: self._blocking.stream("ann"),
            AsyncSubscription: lambda: self._async.stream("ann"),
        }[self._kind]()
        needed = surface.needed(surface.methods(self._kind)[method])
        result = await _result(getattr(target, method)(**needed | given))
        for stream in (target, result):
            if isinstance(stream, (Subscription, AsyncSubscription)):
                await _result(stream.close())


async def _result(found):
    return await found if inspect.isawaitable(found) else found


def test_each_wrong_value_is_tried_for_each_type():
    assert all(len(values) >= 9 for values in surface.WRONG.values())
    assert sum(1 for _ in itertools.chain(surface.cases(surface.WRONG))) > 500
