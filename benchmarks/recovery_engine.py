"""The engine as `benchmarks.recovery` treats it: a process that is killed and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.processes import Child
from engine.config import Config

_TIMEOUT_S = 120.0
_PORT = re.compile(r"gRPC on (\S+:\d+), metrics")
_METRICS = re.compile(r"metrics on (\S+)/metrics")
_TO_REPLAY = re.compile(r"^(\S+) .*?(restored at offset \d+|no snapshot), (\d+) records to replay$", re.MULTILINE)
_READY = re.compile(r"^(\S+) .*? ready: ", re.MULTILINE)


class EngineError(RuntimeError):
    """The engine ended by itself or does not get ready; the message has the end of its log."""


@dataclass(frozen=True)
class Replay:
    """What the engine's log says of its start.

    Attributes:
        records: of the events topic that were in the log and in no snapshot.
        seconds: from the last line about them, after which it polls for the first time, to the line that it is ready.
        from_snapshot: whether any partition was restored.
    """

    records: int
    seconds: float
    from_snapshot: bool


class KillableEngine:
    """`python -m engine serve` with these settings, on free ports. Construction starts it and does not wait.

    Args:
        variables: its environment; that of `environment` where it is not given.
    """

    def __init__(self, config: Config, log_path: Path, variables: dict[str, str] | None = None) -> None:
        assert config.snapshot.dir is not None
        self._snapshots = config.snapshot.dir
        self._left_behind = self._unfinished()
        self._started_s = time.perf_counter()
        self._child = Child(
            "engine", [sys.executable, "-m", "engine", "serve"], log_path, variables or environment(config)
        )

    @property
    def address(self) -> str:
        """host:port of gRPC."""
        found = _PORT.search(self.log())
        if found is None:
            raise EngineError(f"the engine does not listen:\n{self._child.log_tail()}")
        return found[1]

    @property
    def metrics_address(self) -> str:
        """host:port of /metrics."""
        found = _METRICS.search(self.log())
        assert found is not None, "the engine has said where it listens"
        return found[1]

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def ended(self) -> bool:
        return self._child.wait(0) is not None

    def processes(self) -> list[psutil.Process]:
        """The engine's own process first, then those that it has started."""
        engine = psutil.Process(self.pid)
        return [engine, *engine.children(recursive=True)]

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by the name of each series with its labels."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=_TIMEOUT_S) as page:
            lines = page.read().decode().splitlines()
        named = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in named}

    def log(self) -> str:
        return self._child.log_path.read_text(errors="replace")

    def wait_until(
        self, what: str, true: Callable[[], object], tick_s: float = 0.005, within_s: float = _TIMEOUT_S
    ) -> None:
        """Raises EngineError where that does not come, or the engine ends."""
        deadline, pause = time.monotonic() + within_s, threading.Event()
        while not true():
            if self._child.wait(0) is not None or time.monotonic() > deadline:
                raise EngineError(f"waited for the engine: {what}\n{self._child.log_tail(20)}")
            pause.wait(tick_s)

    def wait_until_serving(self, within_s: float = _TIMEOUT_S) -> float:
        """Waits until its health is SERVING; returns the seconds since its start."""
        self.wait_until("to be ready", lambda: _READY.search(self.log()), within_s=within_s)
        with grpc.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            serving = health_pb2.HealthCheckResponse.SERVING
            self.wait_until(
                "to be SERVING",
                lambda: check(health_pb2.HealthCheckRequest(), timeout=5.0).status == serving,
                within_s=within_s,
            )
        return time.perf_counter() - self._started_s

    def wait_until_replaying(self) -> None:
        """Waits until it has said how much there is to replay."""
        self.wait_until("to replay", lambda: _TO_REPLAY.search(self.log()), 0.001)

    def wait_until_writing(self) -> None:
        """Waits until it writes a snapshot."""
        self.wait_until("to write a snapshot", lambda: self._unfinished() - self._left_behind, 0.0005)

    def kill(self) -> str:
        """Ends it by SIGKILL; returns what it was at: "start", "replay", "snapshot" or "live"."""
        os.kill(self._child.pid, signal.SIGKILL)
        self.close()
        if not _READY.search(self.log()):
            return "replay" if _TO_REPLAY.search(self.log()) else "start"
        return "snapshot" if self._unfinished() - self._left_behind else "live"

    def replay(self) -> Replay:
        """Of an engine that is ready."""
        partitions, ready = _TO_REPLAY.findall(self.log()), _READY.search(self.log())
        assert partitions and ready
        return Replay(
            sum(int(records) for *_, records in partitions),
            _seconds(ready[1]) - _seconds(partitions[-1][0]),
            any(how.startswith("restored") for _, how, _ in partitions),
        )

    def stop(self, within_s: float) -> None:
        """Asks it to end, as an operator does, so that it takes its last snapshot; kills it after `within_s`."""
        self._child.stop(within_s)

    def close(self) -> None:
        """Ends it at once, and all that it started."""
        self._child.stop(0)

    def _unfinished(self) -> set[tuple[str, int]]:
        """Snapshots that are being written, or were when their writer was killed."""
        found = set()
        for path in self._snapshots.glob("*.writing"):
            with suppress(FileNotFoundError):  # it has just become whole
                found.add((path.name, path.stat().st_ino))
        return found


def _seconds(said: str) -> float:
    return datetime.fromisoformat(said).timestamp()


def lags(metrics: dict[str, float]) -> list[float]:
    """Of what `KillableEngine.metrics` says: the records of each partition that are not folded yet."""
    return [value for name, value in metrics.items() if name.startswith("ousel_lag_records{")]


def environment(config: Config) -> dict[str, str]:
    """This process's, with the settings that `config` was given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUSEL_")}
    for section in ("kafka", "state", "snapshot", "index"):
        for name, value in getattr(config, section).model_dump(mode="json", exclude_none=True).items():
            environment[f"OUSEL_{section}__{name}".upper()] = value if isinstance(value, str) else json.dumps(value)
    if config.kafka.sasl_password is not None:
        environment["OUSEL_KAFKA__SASL_PASSWORD"] = config.kafka.sasl_password.get_secret_value()
    # The first model of a benchmark is untrained, and need not beat popularity.
    environment["OUSEL_CANARY__MIN_SCORER_SHARE"] = "0"
    return environment | {"OUSEL_SERVING__PORT": "0", "OUSEL_SERVING__METRICS_PORT": "0"}
