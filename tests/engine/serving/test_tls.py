"""TLS and mutual TLS as clients meet them: on the gRPC port and on that of the metrics, while certificates change."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from ousel.v1.model_service_pb2 import GetStatusRequest
from ousel.v1.model_service_pb2_grpc import ModelServiceStub

from deploy.local.certificates import issue_certificate, issue_certificates
from engine.config import Config, ServingConfig, TlsConfig
from engine.serving import server as server_module
from engine.serving.server import Server
from tests.engine.serving.fakes import FakeEngine, FakeLog


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("issued") / "tls"
    issue_certificates(folder)
    issue_certificate(folder, "renewed", "localhost", days=90)
    issue_certificate(folder, "client", "shop")
    return folder


@pytest.fixture(autouse=True)
def quick_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_RELOAD_S", 0.02)


@asynccontextmanager
async def serving(tls: TlsConfig, **settings: object) -> AsyncIterator[Server]:
    engine = FakeEngine()
    config = Config(serving=ServingConfig(port=0, metrics_port=0, **settings), tls=tls)
    server = Server(config, engine, engine.subscriptions, FakeLog())
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@pytest.fixture
def files(issued: Path, tmp_path: Path) -> TlsConfig:
    shutil.copy(issued / "server.crt", tmp_path / "cert.pem")
    shutil.copy(issued / "server.key", tmp_path / "key.pem")
    return TlsConfig(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")


def mutual(files: TlsConfig, issued: Path) -> TlsConfig:
    return files.model_copy(update={"client_authorities": issued / "ca.pem"})


def credentials(issued: Path, client: str | None = None) -> grpc.ChannelCredentials:
    pair = [(issued / f"{client}.{suffix}").read_bytes() for suffix in ("key", "crt")] if client else (None, None)
    return grpc.ssl_channel_credentials((issued / "ca.pem").read_bytes(), *pair)


async def ask(server: Server, channel_credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """The code of one call on a connection of its own."""
    address, options = f"localhost:{server.port}", [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.aio.secure_channel(address, channel_credentials, options=options)
        if channel_credentials
        else grpc.aio.insecure_channel(address, options=options)
    )
    async with channel:
        try:
            await ModelServiceStub(channel).GetStatus(GetStatusRequest(), timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def shown_by(port: int, issued: Path) -> bytes:
    """The certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(issued / "ca.pem"))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


async def test_a_call_over_tls_is_answered_and_one_in_plain_text_is_not(files, issued):
    async with serving(files) as server:
        assert await ask(server, credentials(issued)) is grpc.StatusCode.OK
        assert await ask(server, None) is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_trusts_another_authority_does_not_call(files, issued, tmp_path):
    issue_certificates(tmp_path / "other")
    async with serving(files) as server:
        assert await ask(server, credentials(tmp_path / "other")) is grpc.StatusCode.UNAVAILABLE


async def test_where_clients_are_asked_for_a_certificate_one_without_it_is_turned_away(files, issued, tmp_path):
    issue_certificates(tmp_path / "other")
    stranger = issue_certificate(tmp_path / "other", "client", "shop")
    foreign = grpc.ssl_channel_credentials(
        (issued / "ca.pem").read_bytes(), stranger[1].read_bytes(), stranger[0].read_bytes()
    )
    async with serving(mutual(files, issued)) as server:
        assert await ask(server, credentials(issued, "client")) is grpc.StatusCode.OK
        assert await ask(server, credentials(issued)) is grpc.StatusCode.UNAVAILABLE
        assert await ask(server, foreign) is grpc.StatusCode.UNAVAILABLE


async def test_certificates_change_under_load_and_no_call_fails(files, issued):
    async with serving(files) as server:
        answered, done = 0, asyncio.Event()

        async def call() -> None:
            nonlocal answered
            while not done.is_set():
                assert await ask(server, credentials(issued)) is grpc.StatusCode.OK
                answered += 1

        callers = [asyncio.create_task(call()) for _ in range(4)]
        try:
            for name in ("renewed", "server", "renewed"):
                # One file after the other, as tools write them: for a moment they don't belong together.
                shutil.copy(issued / f"{name}.key", files.key)
                before = answered
                while answered < before + 5:
                    await asyncio.sleep(0.01)
                shutil.copy(issued / f"{name}.crt", files.certificate)
                async with asyncio.timeout(10):
                    while await asyncio.to_thread(shown_by, server.port, issued) != der(issued / f"{name}.crt"):
                        await asyncio.sleep(0.01)
        finally:
            done.set()
        await asyncio.gather(*callers)
        assert answered > 20


def scraped(server: Server, context: ssl.SSLContext | None) -> bytes:
    scheme = "https" if context else "http"
    url = f"{scheme}://localhost:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10, context=context) as answer:
        return answer.read()


def trusting(issued: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(issued / "ca.pem"))


async def test_the_metrics_are_served_over_tls_where_that_is_set(files, issued):
    async with serving(files, metrics_tls=True) as server:
        assert b"ousel_certificate_expiry" in await asyncio.to_thread(scraped, server, trusting(issued))
        with pytest.raises(OSError):
            await asyncio.to_thread(scraped, server, None)
        shutil.copy(issued / "renewed.key", files.key)
        shutil.copy(issued / "renewed.crt", files.certificate)
        async with asyncio.timeout(10):
            while await asyncio.to_thread(shown_by, server.metrics_port, issued) != der(issued / "renewed.crt"):
                await asyncio.sleep(0.01)
    async with serving(files) as server:
        assert b"ousel_ready" in await asyncio.to_thread(scraped, server, None)


async def test_the_metrics_ask_for_a_certificate_where_calls_do(files, issued):
    async with serving(mutual(files, issued), metrics_tls=True) as server:
        with pytest.raises(OSError):
            await asyncio.to_thread(scraped, server, trusting(issued))
        known = trusting(issued)
        known.load_cert_chain(issued / "client.crt", issued / "client.key")
        assert b"ousel_ready" in await asyncio.to_thread(scraped, server, known)


async def test_a_silent_client_of_the_metrics_keeps_no_other_waiting(files, issued):
    async with serving(files, metrics_tls=True) as server:
        _, silent = await asyncio.open_connection("127.0.0.1", server.metrics_port)
        assert b"ousel_ready" in await asyncio.to_thread(scraped, server, trusting(issued))
        silent.close()
