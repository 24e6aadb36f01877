"""No secret is in a log line, an error, a status, a metric or what commands print, whatever callers and operators do.

Secrets that everybody here knows are searched for in everything that comes out.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from ousel.v1 import model_service_pb2, recommender_service_pb2

from engine.commands.config import show_config
from engine.config import ClientsConfig, Config, ConfigError, KafkaConfig, ServingConfig, load_config
from engine.security import guard
from engine.security.token_file import TokenFile
from engine.serving.server import Server
from tests.engine.security.tokens import bearer, line, lines_of, put
from tests.engine.serving.fakes import FakeEngine, FakeLog, Served, Stream, until

PASSWORD = "hush-the-password-of-kafka"
SECRETS = {name: f"ousel_{name:0<43}" for name in ("valid", "wrong", "expired", "revoked", "pasted", "late")}
STATUS = model_service_pb2.GetStatusRequest()
REQUEST = recommender_service_pb2.RecommendRequest(query=recommender_service_pb2.Query(user_id="u1", k=5))


def search(*texts: str) -> None:
    """Fails where a text has a secret, as it is, as bytes are shown, in base64, or by its digest."""
    for secret in [*SECRETS.values(), PASSWORD]:
        forms = (secret, base64.b64encode(secret.encode()).decode(), hashlib.sha256(secret.encode()).hexdigest())
        for text in texts:
            assert not any(form in text for form in forms), text


def lines() -> str:
    every = "recommend,track,push,admin,metrics"
    return "\n".join(
        [
            line("valid", every, SECRETS["valid"]),
            line("revoked", every, SECRETS["revoked"]),
            line("expired", every, SECRETS["expired"], "2020-01-01"),
        ]
    )


async def said(call: Any) -> str:
    """All that a caller is told of how a call ended."""
    try:
        async with asyncio.timeout(5):
            return str(await call)
    except grpc.aio.AioRpcError as error:
        return f"{error!r} {error.code()} {error.details()} {error.trailing_metadata()} {error.debug_error_string()}"


async def test_a_server_under_all_sorts_of_callers_says_no_secret(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(guard, "POLL_S", 0.01)
    path = put(tmp_path / "tokens", lines())
    config = Config(
        serving=ServingConfig(port=0, metrics_port=0), security={"tokens_file": path, "metrics_token": True},
        clients=ClientsConfig(max_calls_per_s=3, max_streams=2, max_message_bytes=1024, max_metadata_bytes=512),
        kafka=_kafka(),
    )  # fmt: skip
    engine, log = FakeEngine(), FakeLog()
    server = Server(config, engine, engine.subscriptions, log)
    await server.start()
    texts = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        house = Served(server, engine, log, channel)
        for secret in SECRETS.values():
            for metadata in (bearer(secret), bearer(secret) * 2, (("authorization", secret),), (("x-token", secret),)):
                texts.append(await said(house.model.GetStatus(STATUS, metadata=metadata)))
        texts += await _over_limits(house)
        stream = Stream(house, bearer(SECRETS["revoked"]))
        await stream.subscribe()
        await stream.list()
        put(path, line("valid", "recommend,metrics", SECRETS["valid"]))
        texts.append(str(await stream.end()))
        for damaged in (
            SECRETS["pasted"],
            f"\nlate {SECRETS['late']}",
            f"a roles={SECRETS['pasted']} sha256={'0' * 64}",
        ):
            put(path, damaged)
            await until(lambda: len(_errors(caplog)) > 0, "the damage is told")
            texts += [record.getMessage() for record in caplog.records]
            caplog.clear()
        texts.append(await asyncio.to_thread(_metrics, server.metrics_port))
    await server.stop(0)
    search(*texts, *(record.getMessage() for record in caplog.records), repr(config), str(config))


async def _over_limits(house: Served) -> list[str]:
    own = bearer(SECRETS["valid"])
    long = recommender_service_pb2.RecommendRequest(query=recommender_service_pb2.Query(user_id="u" * 2000, k=5))
    texts = [
        await said(house.recommender.Recommend(long, metadata=own)),
        await said(house.recommender.Recommend(REQUEST, metadata=(*own, ("x-long", SECRETS["valid"] * 20)))),
    ]
    calls = [said(house.recommender.Recommend(REQUEST, metadata=own)) for _ in range(80)]
    texts += await asyncio.gather(*calls)
    assert any("clients.max_calls_per_s" in text for text in texts)
    return texts


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def _metrics(port: int) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics")
    request.add_header("Authorization", f"Bearer {SECRETS['valid']}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def _kafka() -> KafkaConfig:
    return KafkaConfig(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="me", sasl_password=PASSWORD
    )


@pytest.mark.parametrize(
    "text",
    [
        SECRETS["pasted"], f"a {SECRETS['pasted']}", f"a roles=push sha256={SECRETS['pasted']}",
        f"{SECRETS['pasted']} roles=push sha256={'0' * 64}", f"a roles={SECRETS['pasted']} sha256={'0' * 64}",
        f"a roles=push expires={SECRETS['pasted']} sha256={'0' * 64}", lines_of() + SECRETS["pasted"],
    ],
)  # fmt: skip
def test_a_token_that_stands_in_the_file_by_mistake_is_not_shown(tmp_path, text):
    with pytest.raises(ConfigError) as error:
        TokenFile(put(tmp_path / "tokens", text))
    search(str(error.value), repr(error.value))


def test_commands_print_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    path = tmp_path / "ousel.toml"
    path.write_text(f'[security]\ntokens_file = "{put(tmp_path / "tokens", lines())}"\n')
    for name, value in _kafka().model_dump(exclude_unset=True, exclude={"sasl_password"}).items():
        monkeypatch.setenv(f"OUSEL_KAFKA__{name.upper()}", str(value))
    monkeypatch.setenv("OUSEL_KAFKA__SASL_PASSWORD", PASSWORD)
    show_config(path, False)
    shown = capsys.readouterr()
    assert "tokens_file" in shown.out and "sasl_username" in shown.out
    search(shown.out, shown.err)
    monkeypatch.setenv("OUSEL_SECURITY__TOKEN", SECRETS["pasted"])
    with pytest.raises(ConfigError) as error:
        load_config(path)
    search(str(error.value))


def test_no_option_of_a_command_takes_a_secret():
    """The arguments of a process are for everybody to see."""
    import typer.main

    from engine.__main__ import app as engine
    from trainer.__main__ import app as trainer

    options = [
        option
        for app in (engine, trainer)
        for command in typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in parameter.opts
    ]
    assert len(options) > 30
    secret = [one for one in options if any(word in one for word in ("token", "password", "secret", "passphrase"))]
    assert all(one.endswith("-file") for one in secret)
