"""Law 10, who may: every call, by every role and by none, does what the table of roles says, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socketserver
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2
from ousel.v1 import (
    model_service_pb2,
    state_service_pb2,
)

from engine import metrics
from engine.config import ClientsConfig, Config, ServingConfig
from engine.security import guard
from engine.security.limits import ClientLimits
from engine.security.roles import ACCESS, Role
from engine.serving.reflection import V1
from engine.serving.server import SERVICES, Server
from tests.engine.security.tokens import ROLES, TOKENS, bearer, line, lines_of, put
from tests.engine.serving.fakes import FakeEngine, FakeLog, FakeModels, Served, Stream, failure, until
from tests.laws.calls import HEADER, LIST_SERVICES, REQUESTS
from tests.laws.transports import TRANSPORTS, Transport, certificates

REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
NOBODY = "this call needs a valid token in the metadata `authorization: Bearer TOKEN`"


@dataclass
class House(Served):
    """A server that asks for tokens.

    Attributes:
        path: of its tokens file.
        blocking: a second channel to it, for calls of other threads.
    """

    path: Path
    blocking: grpc.Channel


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> Transport:
    return request.param


@pytest.fixture(autouse=True)
def no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A search through all that is logged by any of these tests, whatever its level."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in [record for when in ("setup", "call") for record in caplog.get_records(when)]:
        assert not any(token in record.getMessage() for token in TOKENS.values()), record


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates, which take time to make."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def house(
    transport: Transport, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    monkeypatch.setattr(guard, "POLL_S", 0.01)
    monkeypatch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (0.01,))
    path = put(tmp_path / "tokens", lines_of())
    sections = {
        "serving": ServingConfig(port=0, metrics_port=0),
        "security": {"tokens_file": path},
        **transport.sections(folder),
    }
    engine, log, models = FakeEngine(), FakeLog(), FakeModels()
    server = Server(Config(**sections), engine, engine.subscriptions, log, models)
    await server.start()
    await server.set_serving(True)
    address, credentials = f"localhost:{server.port}", transport.credentials(folder)
    if credentials is None:
        channel, blocking = grpc.aio.insecure_channel(address), grpc.insecure_channel(address)
    else:
        channel = grpc.aio.secure_channel(address, credentials)
        blocking = grpc.secure_channel(address, credentials)
    async with channel:
        with blocking:
            yield House(server, engine, log, channel, path, blocking)
    await server.stop(0)


async def ended(house: House, method: str, metadata: Any = ()) -> tuple[grpc.StatusCode, str]:
    """Makes a call, reads one answer, and says how the call ended; OK where it goes on after the answer."""

    def made() -> tuple[grpc.StatusCode, str]:
        # Of the two clients of gRPC, this one tells the server's status where a call ends before all was written.
        call = house.blocking.stream_stream(method, request_serializer=lambda message: message.SerializeToString())(
            iter(REQUESTS[method]), timeout=10, metadata=metadata
        )
        try:
            next(call, None)
            call.cancel()
            return grpc.StatusCode.OK, ""
        except grpc.RpcError as error:
            said = f"{error.details()} {error.trailing_metadata()}"
            assert not any(token in said for token in TOKENS.values()), said
            return error.code(), error.details()

    return await asyncio.to_thread(made)


def expected(method: str, roles: set[str]) -> grpc.StatusCode:
    allowed = {str(role) for role in ACCESS[method]}
    return grpc.StatusCode.OK if not allowed or allowed & roles else grpc.StatusCode.PERMISSION_DENIED


async def test_the_table_has_every_call_of_every_service_and_no_other(house: House):
    call = await open_reflection(house, TOKENS["admin"])
    await call.write(LIST_SERVICES)
    names = [one.name for one in (await call.read()).list_services_response.service]
    assert {*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME, V1} == set(names)
    services = [descriptor_pool.Default().FindServiceByName(name) for name in names]
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert ACCESS.keys() == methods
    assert REQUESTS.keys() == methods


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_make_its_calls_and_no_others(house: House, role: str):
    for method in REQUESTS:
        code, details = await ended(house, method, bearer(TOKENS[role]))
        assert code is expected(method, {role}), method
        if code is grpc.StatusCode.PERMISSION_DENIED:
            assert f"needs a token with the role {' or '.join(ACCESS[method])}" in details
            assert role not in details.split("role ")[1] and TOKENS[role] not in details
    done = {
        "recommend": bool(house.engine.asked),
        "track": any(event.item_id for event in house.log.events),  # ForgetUser writes to the log as well.
        "push": bool(house.models.taken),
        "admin": any([house.models.asked, house.engine.exported, house.engine.digests, house.engine.snapshots]),
    }
    assert done == {other: other == role for other in ROLES}


async def test_a_token_with_two_roles_may_make_the_calls_of_both(house: House):
    put(house.path, lines_of() + line("both", "recommend,track", "both"))
    await until_in_force(house, "both")
    for method in REQUESTS:
        assert (await ended(house, method, bearer("both")))[0] is expected(method, {"recommend", "track"})


async def until_in_force(house: House, token: str, *, ends: bool = False) -> None:
    """Waits until the file's change counts: until a token gets in, or does so no more."""
    async with asyncio.timeout(10):
        method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        while ((await ended(house, method, bearer(token)))[0] is grpc.StatusCode.UNAUTHENTICATED) != ends:
            await asyncio.sleep(0.005)


def wrong(token: str) -> dict[str, Any]:
    """Metadata that must let nobody in."""
    return {
        "none": (),
        "empty": (("authorization", ""),),
        "no scheme": (("authorization", token),),
        "another scheme": (("authorization", f"Basic {token}"),),
        "wrong": bearer(token[:-1] + "x"),
        "the digest": bearer(hashlib.sha256(token.encode()).hexdigest()),
        "two": bearer(token) + bearer(token),
        "in another place": (("x-token", token),),
    }


@pytest.mark.parametrize("how", wrong(""))
async def test_without_a_valid_token_only_health_answers(house: House, how: str):
    for method, allowed in ACCESS.items():
        code, details = await ended(house, method, wrong(TOKENS["admin"])[how])
        assert code is (grpc.StatusCode.UNAUTHENTICATED if allowed else grpc.StatusCode.OK), method
        assert details in ("", NOBODY)
    assert not house.engine.asked and not house.log.events and not house.models.taken


async def test_the_scheme_is_read_whatever_its_case(house: House):
    metadata = (("authorization", f"bearer {TOKENS['admin']}"),)
    assert (await ended(house, "/ousel.v1.ModelService/GetStatus", metadata))[0] is grpc.StatusCode.OK


async def test_an_expired_token_is_as_one_that_is_wrong(house: House):
    put(house.path, lines_of() + line("old", "admin", "old", "2020-01-01") + "\n" + line("new", "track", "new"))
    await until_in_force(house, "new")
    for method, allowed in ACCESS.items():
        if allowed:
            assert await ended(house, method, bearer("old")) == (grpc.StatusCode.UNAUTHENTICATED, NOBODY)


async def test_a_revoked_token_gets_in_no_more_and_a_new_one_does(house: House):
    put(house.path, lines_of({**TOKENS, "admin": "another"}))
    await until_in_force(house, "another")
    for method, allowed in ACCESS.items():
        if allowed:
            assert await ended(house, method, bearer(TOKENS["admin"])) == (
                grpc.StatusCode.UNAUTHENTICATED, NOBODY,
            )  # fmt: skip
            assert (await ended(house, method, bearer("another")))[0] is expected(method, {"admin"})


async def test_a_damaged_file_changes_nothing(house: House):
    put(house.path, "damaged")
    await until(lambda: metrics.TOKENS_FILE_PROBLEM._value.get() == 1, "the damage is noticed")
    for role in ROLES:
        method = next(method for method, allowed in ACCESS.items() if Role(role) in allowed)
        assert (await ended(house, method, bearer(TOKENS[role])))[0] is grpc.StatusCode.OK


# -- calls that are open while their tokens change ---------------------------------------------------------------------


async def stream_of(house: House, token: str) -> Stream:
    """An open stream that has its first list."""
    stream = Stream(house, bearer(token))
    await stream.subscribe()
    await stream.list()
    return stream


async def open_push(house: House, token: str) -> Any:
    call = house.model.PushWeights(metadata=bearer(token))
    await call.write(model_service_pb2.PushWeightsRequest(header=HEADER))
    await until(lambda: house.server.models._pushing.locked(), "the push is being received")
    return call


async def open_reflection(house: House, token: str) -> Any:
    call = house.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(metadata=bearer(token))
    await call.write(LIST_SERVICES)
    assert await call.read() is not grpc.aio.EOF
    return call


async def waiting_for_a_subscription(house: House, token: str) -> Any:
    call = house.recommender.StreamRecommendations(metadata=bearer(token))
    await until(lambda: any("Stream" in caller.method for caller in lasting(house)), "the stream is open")
    return call


def lasting(house: House) -> dict[Any, None]:
    return house.server.models._calls._guard._lasting


OPENED: dict[str, tuple[str, Callable[[House, str], Any]]] = {
    "a stream of lists": ("recommend", stream_of),
    "a stream that has not subscribed": ("recommend", waiting_for_a_subscription),
    "a push": ("push", open_push),
    "reflection": ("admin", open_reflection),
}


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize("change", ["revoked", "expired", "damaged", "other role"])
async def test_an_open_call_ends_when_its_token_counts_no_more(house: House, name: str, change: str):
    role, opened = OPENED[name]
    soon = (datetime.now(UTC) + timedelta(seconds=0.6)).isoformat()
    others = lines_of({other: token for other, token in TOKENS.items() if other != role})
    own = line("own", role, "own", soon if change == "expired" else "")
    put(house.path, f"{others}{own}\n")
    await until_in_force(house, "own")
    call = await opened(house, "own")
    other_role = "metrics"
    put(
        house.path,
        {
            "revoked": others, "expired": f"{others}{own}\n", "damaged": "damaged",
            "other role": f"{others}{line('own', other_role, 'own')}\n",
        }[change],
    )  # fmt: skip
    if change == "damaged":
        await until(lambda: metrics.TOKENS_FILE_PROBLEM._value.get() == 1, "the damage is noticed")
        assert lasting(house)
        return
    code, details = await end(call)
    if change == "other role":
        assert code is grpc.StatusCode.PERMISSION_DENIED and "needs a token with the role" in details
    else:
        assert (code, details) == (grpc.StatusCode.UNAUTHENTICATED, NOBODY)
    await until(lambda: not lasting(house), "the call is forgotten")


async def end(call: Any) -> tuple[grpc.StatusCode, str]:
    call = getattr(call, "call", call)
    async with asyncio.timeout(10):
        return await call.code(), await call.details()


async def test_a_stream_whose_token_stays_goes_on_over_a_change(house: House):
    stream = await stream_of(house, TOKENS["recommend"])
    put(house.path, lines_of() + line("another", "push", "another"))
    await until_in_force(house, "another")
    house.engine.change("user:u1", model=True)
    assert (await stream.list())[0] == ["a", "b"]


async def test_an_event_on_a_stream_needs_the_role_of_events(house: House):
    stream = await stream_of(house, TOKENS["recommend"])
    await stream.send(item_id="a", kind="view")
    code, details = await stream.end()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert details == "an event on a stream needs a token with the role track"
    assert not house.log.events
    put(house.path, lines_of() + line("both", "recommend,track", "both"))
    await until_in_force(house, "both")
    stream = await stream_of(house, "both")
    await stream.send(item_id="a", kind="view")
    await until(lambda: bool(house.log.events), "the event is written")


# -- what the status shows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "fields"),
    [
        ("recommend", {"serving", "model_version"}),
        ("push", {"serving", "model_version", "model_versions", "model_metrics", "model_origin"}),
    ],
)
async def test_the_status_shows_a_role_what_it_needs(house: House, role: str, fields: set[str]):
    request = model_service_pb2.GetStatusRequest()
    whole = await house.model.GetStatus(request, metadata=bearer(TOKENS["admin"]))
    assert whole.users and whole.reflects and whole.partitions
    shown = await house.model.GetStatus(request, metadata=bearer(TOKENS[role]))
    assert {field.name for field, _ in shown.ListFields()} == fields


async def test_refusals_are_counted_by_reason_and_role(house: House):
    def counted(reason: str, role: str) -> float:
        return metrics.CALLS_REFUSED.labels(reason, role)._value.get()

    before = [counted(*one) for one in (("missing", "admin"), ("wrong", "push"), ("role", "track"))]
    await failure(house.state.GetDigest(state_service_pb2.GetDigestRequest()))
    await ended(house, "/ousel.v1.ModelService/PushWeights", bearer("x"))
    await ended(house, "/ousel.v1.EventService/Track", bearer(TOKENS["push"]))
    after = [counted(*one) for one in (("missing", "admin"), ("wrong", "push"), ("role", "track"))]
    assert [now - was for now, was in zip(after, before, strict=True)] == [1, 1, 1]


async def test_a_call_that_the_table_does_not_have_is_refused_to_everybody(monkeypatch):
    monkeypatch.setattr(guard, "ACCESS", {})

    async def inner(request: Any, context: Any) -> None:
        raise AssertionError("the call got through")

    behavior = guard.Guard(None, ClientLimits(ClientsConfig())).guarded(
        "/ousel.v1.NewService/New", inner, lasting=False
    )
    with pytest.raises(guard.RoleMissing, match=r"/ousel\.v1\.NewService/New is not to be called by anybody"):
        await behavior(None, None)
