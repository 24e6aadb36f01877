"""Failures that happen in every production leave one line in the engine's log at most, and no traceback."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

import grpc
import ousel
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ousel.v1 import (
    event_pb2,
    event_service_pb2,
    event_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    privacy_service_pb2,
    privacy_service_pb2_grpc,
    recommender_service_pb2,
    recommender_service_pb2_grpc,
    state_service_pb2,
    state_service_pb2_grpc,
)

from engine.config import KafkaConfig
from engine.events.batch import Record, Rejection
from engine.events.letter_writer import KafkaDeadLetters
from engine.model.weights import encode_weights
from tests.engine.models import small_weights
from tests.integration.engines import DEADLINE_S, ITEMS, EngineProcess, load, running, until

# As Python, asyncio, gRPC, socketserver and logging begin a report that nobody asked for.
REPORTS = re.compile(r"Traceback|Exception (?:occurred|in|ignored)|never retrieved|Logging error|Unhandled|Unexpected")


def stubs(channel: grpc.Channel) -> tuple[
    recommender_service_pb2_grpc.RecommenderServiceStub,
    event_service_pb2_grpc.EventServiceStub,
    model_service_pb2_grpc.ModelServiceStub,
    privacy_service_pb2_grpc.PrivacyServiceStub,
    state_service_pb2_grpc.StateServiceStub,
]:  # fmt: skip
    return (
        recommender_service_pb2_grpc.RecommenderServiceStub(channel),
        event_service_pb2_grpc.EventServiceStub(channel),
        model_service_pb2_grpc.ModelServiceStub(channel),
        privacy_service_pb2_grpc.PrivacyServiceStub(channel),
        state_service_pb2_grpc.StateServiceStub(channel),
    )


def pushed(data: bytes, version: int) -> Iterator[model_service_pb2.PushWeightsRequest]:
    header = model_service_pb2.WeightsHeader(
        version=version, size_bytes=len(data), sha256=hashlib.sha256(data).digest()
    )
    yield model_service_pb2.PushWeightsRequest(header=header)
    for first in range(0, len(data), 4096):
        yield model_service_pb2.PushWeightsRequest(chunk=data[first : first + 4096])


def held_open(*messages: object) -> tuple[Iterator[object], threading.Event]:
    """A stream of requests that says these and then nothing, until it is told to end."""
    end = threading.Event()

    def say() -> Iterator[object]:
        yield from messages
        end.wait(DEADLINE_S)

    return say(), end


def query(user_id: str = "u1") -> recommender_service_pb2.Query:
    return recommender_service_pb2.Query(user_id=user_id, k=5)


def leave_in_the_middle(engine: EngineProcess, weights: bytes) -> None:
    """Begins every kind of call, and leaves by a cancel, by a deadline, or by closing the connection."""
    for how in ("cancel", "deadline", "close"):
        channel = grpc.insecure_channel(engine.address)
        recommender, events, models, privacy, states = stubs(channel)
        timeout = 0.02 if how == "deadline" else DEADLINE_S
        far = event_pb2.LogPosition(topic="ousel.events", partition=0, offset=10**6)
        ask = partial(recommender_service_pb2.RecommendRequest, query=query())
        event = event_service_pb2.TrackRequest(event=event_pb2.Event(user_id="u1", item_id=ITEMS[0]))
        asked = [
            recommender.Recommend.future(ask(after=far), timeout),
            *(recommender.Recommend.future(ask(), timeout) for _ in range(50)),
            *(events.Track.future(event, timeout) for _ in range(20)),
            privacy.ExportUser.future(privacy_service_pb2.ExportUserRequest(user_id="u1"), timeout),
            states.GetDigest.future(state_service_pb2.GetDigestRequest(), timeout),
            states.TakeSnapshot.future(state_service_pb2.TakeSnapshotRequest(), timeout),
            models.RollBack.future(model_service_pb2.RollBackRequest(), timeout),
        ]
        ends = []
        subscribe = recommender_service_pb2.StreamRecommendationsRequest(subscribe=query())
        track = recommender_service_pb2.StreamRecommendationsRequest(
            event=event_pb2.Event(user_id="u1", item_id=ITEMS[1])
        )
        for messages in ((), (subscribe,), (subscribe, track, track)):
            said, end = held_open(*messages)
            ends.append(end)
            asked.append(recommender.StreamRecommendations(said, timeout=timeout))
        header, *chunks = pushed(weights, 3)
        for messages in ((), (header,), (header, chunks[0])):
            said, end = held_open(*messages)
            ends.append(end)
            asked.append(models.PushWeights.future(said, timeout))
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=timeout)
        with suppress(grpc.RpcError):
            next(watch)
        asked.append(watch)
        if how == "cancel":
            for call in asked:
                call.cancel()
        elif how == "deadline":
            for call in asked:
                with suppress(grpc.RpcError, grpc.FutureTimeoutError, StopIteration):
                    call.result(DEADLINE_S) if hasattr(call, "result") else list(call)
        for end in ends:
            end.set()
        channel.close()
    # A push of which everything has arrived when its client leaves.
    for version in (4, 5):
        with grpc.insecure_channel(engine.address) as channel:
            call = stubs(channel)[2].PushWeights.future(pushed(weights, version), DEADLINE_S)
            threading.Event().wait(0.02 * (version - 3))
            call.cancel()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection that is reset in the end, as a client that dies leaves it."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
        yield connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100
HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def hang_up(port: int) -> None:
    """Sends what strangers send, whole and by halves, and resets the connection."""
    for said in (
        b"",
        b"GET /metr",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        TLS_HELLO,
        HTTP_2,
        HTTP_2 + b"\xff" * 50,
        b"\x00" * 99,
    ):
        for read in (False, True):
            with connected(port) as connection, suppress(OSError):
                connection.sendall(said)
                if read:
                    connection.settimeout(0.05)
                    connection.recv(1)


def test_clients_that_leave_in_the_middle_leave_no_traceback(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    weights = encode_weights(small_weights(ITEMS))
    load(kafka_config)
    log = tmp_path / "engine.log"
    with running(
        kafka_config, log, OUSEL_SNAPSHOT__DIR=str(tmp_path / "snapshots"), OUSEL_STATE__CONTENT_DIM="16"
    ) as engine:
        for _ in range(3):
            leave_in_the_middle(engine, weights)
            hang_up(engine.port)
            hang_up(engine.metrics_port)
        # The calls of those who left may fill the queue for a moment; the client obeys the server's hint and repeats.
        with ousel.Client(engine.address, timeout_s=DEADLINE_S) as client:
            client.recommend("u1", k=5)
        with grpc.insecure_channel(engine.address) as channel:
            _, _, models, _, _ = stubs(channel)
            status = models.GetStatus(model_service_pb2.GetStatusRequest(), timeout=DEADLINE_S)
            assert status.serving
        assert engine.stop() == 0
    assert not REPORTS.search(log.read_text()), log.read_text()


class Piped:
    """An engine whose log goes through a pipe, so that a limit on the size of its files does not concern the log."""

    def __init__(self, kafka: KafkaConfig, **variables: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUSEL_")}
        for name, value in kafka.model_dump(exclude_unset=True, exclude_none=True).items():
            environment[f"OUSEL_KAFKA__{name.upper()}"] = str(value)
        if kafka.sasl_password is not None:
            environment["OUSEL_KAFKA__SASL_PASSWORD"] = kafka.sasl_password.get_secret_value()
        environment |= {"OUSEL_SERVING__PORT": "0", "OUSEL_SERVING__METRICS_PORT": "0"} | variables
        command = [sys.executable, "-m", "engine", "serve"]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def line(self, pattern: str) -> re.Match[str]:
        found: list[re.Match[str]] = []

        def look() -> bool:
            found[:] = filter(None, (re.search(pattern, line) for line in list(self.lines)))
            return bool(found)

        until(look, lambda: "".join(self.lines))
        return found[0]

    def end(self) -> list[str]:
        self.process.terminate()
        assert self.process.wait(DEADLINE_S) == 0
        self._reading.join(DEADLINE_S)
        return self.lines

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_a_full_disk_at_a_snapshot_is_one_line_and_the_next_snapshot_is_taken_once_there_is_room(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    load(kafka_config)
    folder = tmp_path / "snapshots"
    with closing(Piped(kafka_config, OUSEL_SNAPSHOT__DIR=str(folder))) as engine:
        port = engine.line(r"gRPC on 127.0.0.1:(\d+)")[1]
        engine.line("ready: 200 events")
        limits = resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE)
        # No file may grow beyond 1,000 bytes: the system refuses it as it refuses a write to a full disk.
        resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE, (1000, limits[1]))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            take = stubs(channel)[4].TakeSnapshot
            with pytest.raises(grpc.RpcError) as failed:
                take(state_service_pb2.TakeSnapshotRequest(), timeout=DEADLINE_S)
            assert failed.value.code() is grpc.StatusCode.INTERNAL
            assert "the snapshot failed, the one before it still counts: " in failed.value.details()
            resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE, limits)
            take(state_service_pb2.TakeSnapshotRequest(), timeout=DEADLINE_S)
        lines = engine.end()
    assert [path.suffix for path in folder.iterdir() if path.is_dir() and path.suffix == ".writing"] == []
    failures = [line for line in lines if "snapshot failed" in line]
    assert len(failures) == 1, failures
    assert not REPORTS.search("".join(lines)), "".join(lines)


def run(*arguments: str, stdout: int | IO[bytes] = subprocess.PIPE, **variables: str) -> tuple[int, str]:
    """Runs `ousel-engine` to its end; returns its exit code and what it wrote to stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUSEL_")} | variables
    command = [sys.executable, "-m", "engine", *arguments]
    done = subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, timeout=DEADLINE_S)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("setting", ["PORT", "METRICS_PORT"])
def test_a_port_that_is_taken_is_one_line(setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"OUSEL_SERVING__PORT": "0", "OUSEL_SERVING__METRICS_PORT": "0", f"OUSEL_SERVING__{setting}": port}
        code, said = run("serve", **ports)
    assert code == 1
    *_, last = said.splitlines()
    assert re.fullmatch(rf"ousel-engine: can't listen on 127\.0\.0\.1:{port} for (gRPC|metrics): .*in use", last)
    assert not REPORTS.search(said)


def test_output_that_nobody_reads_or_that_finds_no_room_is_one_line_at_most(kafka_config: KafkaConfig) -> None:
    settings = {
        "OUSEL_KAFKA__BOOTSTRAP": kafka_config.bootstrap,
        "OUSEL_KAFKA__DEAD_LETTERS_TOPIC": kafka_config.dead_letters_topic,
    }
    if kafka_config.security_protocol != "PLAINTEXT":
        pytest.skip("the settings of the connection are those of the other tests")
    with closing(KafkaDeadLetters(kafka_config)) as letters:
        letters.publish([Rejection(Record("ousel.events", 0, at, 1, None, b"v"), "r") for at in range(5)])
        letters.settle()
    with Path("/dev/full").open("wb") as full:
        code, said = run("dead-letters", stdout=full, **settings)
    assert (code, said) == (1, "ousel-engine: No space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, said = run("dead-letters", stdout=writing, **settings)
    finally:
        os.close(writing)
    assert said == ""
