import socketserver
from collections.abc import AsyncIterator

import grpc
import pytest

from engine.config import Config, EventsConfig, KafkaConfig, ModelConfig, ServingConfig
from engine.serving.server import Server
from tests.engine.serving.fakes import FakeEngine, FakeLog, FakeModels, Served


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> Config | None:
    """Another configuration, which a test may bring by way of `indirect`."""
    return getattr(request, "param", None)


@pytest.fixture
def config(request: pytest.FixtureRequest, whole: Config | None) -> Config:
    """Small limits; a test may bring another serving section by way of `indirect`."""
    return whole or Config(
        serving=getattr(request, "param", ServingConfig(port=0, metrics_port=0)),
        events=EventsConfig(max_id_bytes=32),
        model=ModelConfig(max_weights_bytes=100_000),
        kafka=KafkaConfig(request_timeout_ms=2000),
    )


@pytest.fixture(autouse=True)
def quick_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the metrics server notice its end at once; by default it looks every half second."""
    monkeypatch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (0.01,))


@pytest.fixture
async def served(config: Config) -> AsyncIterator[Served]:
    engine, log, models = FakeEngine(), FakeLog(), FakeModels()
    server = Server(config, engine, engine.subscriptions, log, models)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Served(server, engine, log, channel)
    await server.stop(0)
