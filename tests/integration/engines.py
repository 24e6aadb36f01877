"""The engine as users run it, for tests: a process of its own, against a real broker."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import grpc
import ousel
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ousel.v1 import catalog_pb2, event_pb2, model_service_pb2, model_service_pb2_grpc

from engine.config import KafkaConfig
from engine.events.producer import EventProducer
from tests.integration.engine_process import ForkedEngine

DEADLINE_S = 60.0
_ANSWER_S = 5.0
ITEMS = [f"i{at:02}" for at in range(40)]
SERVING = health_pb2.HealthCheckResponse.SERVING


class EngineProcess:
    """`ousel-engine serve` on fresh ports."""

    def __init__(self, kafka: KafkaConfig, log_path: Path, **variables: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUSEL_")}
        given = kafka.model_dump(exclude_unset=True, exclude_none=True)
        if kafka.sasl_password is not None:
            given["sasl_password"] = kafka.sasl_password.get_secret_value()
        environment |= {f"OUSEL_KAFKA__{name.upper()}": str(value) for name, value in given.items()}
        environment |= {"OUSEL_SERVING__PORT": "0", "OUSEL_SERVING__METRICS_PORT": "0"}
        # Engines of several tests, all of the port 0, would have one name in the default folder.
        if not {"OUSEL_SNAPSHOT__DIR", "XDG_STATE_HOME"} & variables.keys():
            environment["OUSEL_SNAPSHOT__ENABLED"] = "false"
        environment |= variables
        self._log_path = log_path
        log_path.write_bytes(b"")
        self.process = ForkedEngine(log_path, environment)
        try:
            listening = self.line(r"gRPC on 127.0.0.1:(\d+), metrics on 127.0.0.1:(\d+)")
        except BaseException:
            self.kill()  # An engine that is slow to start would outlive the test that gave up on it.
            raise
        self.port, self.metrics_port = map(int, listening)
        self.address = f"127.0.0.1:{self.port}"

    def log(self) -> str:
        return self._log_path.read_text()

    def line(self, pattern: str) -> tuple[str, ...]:
        """Waits until the log has it; returns the groups."""
        until(lambda: re.search(pattern, self.log()) or self.process.poll() is not None, self.log)
        found = re.search(pattern, self.log())
        assert found, f"{pattern!r} is not in the log:\n{self.log()}"
        return found.groups()

    def health(self, timeout_s: float = DEADLINE_S) -> int:
        """What the health service says, once it answers."""
        with grpc.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            return check(health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=True).status

    def wait_until_serving(self) -> None:
        """Fails at once where the engine ends instead."""
        until(lambda: self.process.poll() is not None or self._serving(), self.log)
        assert self.process.poll() is None, f"the engine has ended:\n{self.log()}"

    def _serving(self) -> bool:
        with suppress(grpc.RpcError):  # It may end while it is asked.
            return self.health(timeout_s=_ANSWER_S) == SERVING
        return False

    def stop(self) -> int:
        """Asks it to end; returns the exit code."""
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """Ends it by SIGKILL. Safe to call twice."""
        self.process.kill()
        self.process.wait()


def until(true: Callable[[], object], explain: Callable[[], object] = lambda: "") -> None:
    """Waits for a condition, at most until the deadline."""
    deadline, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not true():
        assert time.monotonic() < deadline, f"the deadline passed: {explain()}"
        pause.wait(0.02)


@contextmanager
def running(kafka: KafkaConfig, log_path: Path, **variables: str) -> Iterator[EngineProcess]:
    """An engine that serves."""
    engine = EngineProcess(kafka, log_path, **variables)
    try:
        engine.wait_until_serving()
        yield engine
    finally:
        engine.kill()


def push(address: str, data: bytes, version: int, sha256: bytes | None = None) -> model_service_pb2.PushWeightsResponse:
    """Pushes a model; all engines build it from now on."""
    header = model_service_pb2.WeightsHeader(
        version=version, size_bytes=len(data), sha256=sha256 or hashlib.sha256(data).digest()
    )
    messages = [model_service_pb2.PushWeightsRequest(header=header)]
    messages += [model_service_pb2.PushWeightsRequest(chunk=data[at : at + 8192]) for at in range(0, len(data), 8192)]
    with grpc.insecure_channel(address) as channel:
        return model_service_pb2_grpc.ModelServiceStub(channel).PushWeights(iter(messages), timeout=DEADLINE_S)


def wait_until_it_serves(client: ousel.Client, version: int) -> None:
    """Waits for a model; fails with what the engine says of it."""
    until(lambda: client.status().model_version == version, client.list_models)


def purchase(user_id: str, item_id: str, event_id: str) -> event_pb2.Event:
    return event_pb2.Event(event_id=event_id, user_id=user_id, item_id=item_id, kind="purchase")


def write(
    kafka: KafkaConfig, events: Iterable[event_pb2.Event], items: Iterable[catalog_pb2.Item] = ()
) -> list[event_pb2.LogPosition]:
    """Writes the items, then the events; returns where the events lie."""
    with closing(EventProducer(kafka)) as producer:
        sent = [producer.send_item(item) for item in items]
        tracked = [producer.send_event(event) for event in events]
        for future in sent:
            future.result(DEADLINE_S)
        return [future.result(DEADLINE_S) for future in tracked]


def load(kafka: KafkaConfig) -> None:
    """A catalog, and 200 purchases by ten users."""
    write(
        kafka,
        [purchase(f"u{at % 10}", ITEMS[at * at % 40], f"e{at}") for at in range(200)],
        [catalog_pb2.Item(item_id=item, title=f"Title {item}") for item in ITEMS],
    )
