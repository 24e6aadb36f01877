"""Health on a port of its own: it asks for nothing, and says what the main port says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ousel.v1.model_service_pb2 import GetStatusRequest
from ousel.v1.model_service_pb2_grpc import ModelServiceStub

from engine.config import Config, ServingConfig
from engine.serving.server import ALIVE, PortTaken, Server
from tests.engine.security.tokens import lines_of, put
from tests.engine.serving.fakes import FakeEngine, failure

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
REQUEST = health_pb2.HealthCheckRequest()


def made(tokens: Path | None = None, **serving: object) -> Server:
    engine = FakeEngine()
    settings = ServingConfig(**{"port": 0, "metrics_port": 0, "health_port": 0, **serving})
    return Server(Config(serving=settings, security={"tokens_file": tokens}), engine, engine.subscriptions, None)


@asynccontextmanager
async def stubs(*ports: int | None) -> AsyncIterator[list[health_pb2_grpc.HealthStub]]:
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in ports]
    yield [health_pb2_grpc.HealthStub(channel) for channel in channels]
    for channel in channels:
        await channel.close()


async def test_both_ports_say_the_same_and_a_watcher_of_either_is_told():
    server = made()
    await server.start()
    async with stubs(server.port, server.health_port) as found, asyncio.timeout(10):
        watches = [stub.Watch(REQUEST) for stub in found]
        for serving, said in ((False, NOT_SERVING), (True, SERVING), (False, NOT_SERVING)):
            await server.set_serving(serving)
            assert [(await stub.Check(REQUEST)).status for stub in found] == [said, said]
            assert [(await watch.read()).status for watch in watches] == [said, said]
    await server.stop(0)


async def test_an_engine_that_does_not_serve_is_alive_all_the_same():
    server = made()
    await server.start()
    async with stubs(server.port, server.health_port) as found, asyncio.timeout(10):
        for stub in found:
            assert (await stub.Check(REQUEST)).status == NOT_SERVING
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=ALIVE))).status == SERVING
    await server.stop(0)


async def test_it_asks_for_no_token_and_has_no_other_call(tmp_path):
    server = made(put(tmp_path / "tokens", lines_of()))
    await server.start()
    async with (
        stubs(server.health_port) as [stub],
        grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as channel,
    ):
        assert (await stub.Check(REQUEST)).status == NOT_SERVING
        code, _ = await failure(ModelServiceStub(channel).GetStatus(GetStatusRequest()))
        assert code is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


async def test_without_the_setting_there_is_none():
    server = made(health_port=None)
    await server.start()
    assert server.health_port is None
    await server.stop(0)


@pytest.mark.parametrize("setting", ["port", "health_port"])
async def test_a_taken_port_is_one_clear_line_and_gives_the_others_free(setting, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        server = made(**{setting: number})
        what = "gRPC" if setting == "port" else "health"
        with pytest.raises(PortTaken, match=rf"^can't listen on 127\.0\.0\.1:{number} for {what}: Address already"):
            await server.start()
    for port in (server.metrics_port, server.health_port if setting == "port" else server.metrics_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert capfd.readouterr() == ("", "")


async def test_stopping_frees_it_and_may_be_repeated():
    server = made()
    await server.start()
    port = server.health_port
    await server.stop(0)
    await server.stop(0)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
