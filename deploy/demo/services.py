"""The processes of the demo: broker (or the Kafka at hand), engine and trainer."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.local.broker import EmbeddedBroker
from deploy.local.processes import Child, tail
from engine.config import KafkaConfig, load_config
from engine.events.kafka import connection_settings
from engine.events.topics import ensure_topics
from trainer.config import TrainSection

_HOST = "127.0.0.1"
_CHECK_S = 0.25
_TAIL_LINES = 15


class ServiceDied(RuntimeError):
    """One of the processes ended though nobody asked it to; the message has the end of its log."""


class Process(Protocol):
    """What `Child` and `EmbeddedBroker` share."""

    log_path: Path

    def wait(self, timeout_s: float | None = None) -> int | None: ...
    def stop(self) -> None: ...


class Services:
    """Starts the three one by one, watches over them and stops them all. Ports are taken free if the usual ones aren't.

    Args:
        data_dir: for the logs of all, the data of the broker and the engine's snapshots; both are emptied first.
        train_minutes: budget of the first training.
        retrain_events: live events after which the trainer trains again.

    Raises:
        ConfigError: an OUSEL_* variable is wrong.
    """

    def __init__(self, data_dir: Path, train_minutes: float, retrain_events: int) -> None:
        config = load_config()
        self._data_dir = data_dir
        self._running: dict[str, Process] = {}
        self.kafka: KafkaConfig = config.kafka
        self.external_kafka = "OUSEL_KAFKA__BOOTSTRAP" in os.environ
        self.port = free_port(config.serving.port)
        self.metrics_port = free_port(config.serving.metrics_port)
        self._env = {
            "OUSEL_SERVING__HOST": _HOST,
            "OUSEL_SERVING__PORT": str(self.port),
            "OUSEL_SERVING__METRICS_HOST": _HOST,
            "OUSEL_SERVING__METRICS_PORT": str(self.metrics_port),
            # Households buy the same things over months: a longer memory than the default pays here.
            "OUSEL_STATE__HISTORY": "256",
            # A snapshot is taken when `ousel snapshot` asks for it, and none that would show in the freshness.
            "OUSEL_SNAPSHOT__ENABLED": "true",
            "OUSEL_SNAPSHOT__DIR": str((data_dir / "snapshots").resolve()),
            "OUSEL_SNAPSHOT__INTERVAL_S": "86400",
            "OUSEL_TRAINER__ENGINE": self.address,
            "OUSEL_TRAINER__METRICS_PORT": str(free_port(TrainSection().metrics_port)),
            # A first model soon, and a better one while somebody looks.
            "OUSEL_TRAINER__FIRST_MINUTES": str(train_minutes),
            "OUSEL_TRAINER__MAX_MINUTES": str(1.5 * train_minutes),
            "OUSEL_TRAINER__RETRAIN_EVENTS": str(retrain_events),
        }

    @property
    def address(self) -> str:
        """host:port of the engine's gRPC server."""
        return f"{_HOST}:{self.port}"

    def start_log(self) -> None:
        """Starts the embedded broker, unless another Kafka is named, and creates the topics.

        Raises:
            BrokerError: the embedded broker does not start.
            ServiceDied: the Kafka that is named does not answer or refuses a topic.
        """
        # An earlier run's are of another log.
        shutil.rmtree(self._data_dir / "snapshots", ignore_errors=True)
        if self.external_kafka:
            # Fresh names: what an earlier run left would be folded too.
            prefix = f"ousel-demo-{time.time_ns() // 1_000_000}"
            names = {
                f"{name}_topic": f"{prefix}.{name.replace('_', '-')}" for name in ("events", "items", "dead_letters")
            }
            self.kafka = self.kafka.model_copy(update=names)
        else:
            folder = self._data_dir / "broker"
            shutil.rmtree(folder, ignore_errors=True)
            broker = EmbeddedBroker(folder)
            self._running["broker"] = broker
            self.kafka = self.kafka.model_copy(update={"bootstrap": broker.bootstrap})
        try:
            ensure_topics(self.kafka)
        except (KafkaError, OSError) as error:
            raise ServiceDied(f"the topics can't be created on Kafka at {self.kafka.bootstrap}: {error}") from error
        self._env |= {
            f"OUSEL_KAFKA__{name.upper()}": getattr(self.kafka, name)
            for name in ("bootstrap", "events_topic", "items_topic", "dead_letters_topic")
        }

    def start_engine(self) -> None:
        self._start("engine", "-m", "engine", "serve")

    def start_trainer(self, min_events: int) -> None:
        """Starts it beside the loading: it folds what comes, and trains once it has `min_events`."""
        self._env["OUSEL_TRAINER__MIN_EVENTS"] = str(min_events)
        self._start("trainer", "-m", "trainer", "run")

    def last_line(self, name: str) -> str:
        """The newest line of a child's log, without the time and level before its message."""
        line = tail(self._data_dir / f"{name}.log", 1)
        return line.partition(": ")[2] or line

    def log_paths(self) -> list[Path]:
        return [process.log_path for process in self._running.values()]

    async def watch(self) -> None:
        """Returns never.

        Raises:
            ServiceDied: as soon as one of the processes has ended.
        """
        while True:
            for name, process in self._running.items():
                code = process.wait(0)
                if code is not None:
                    end = tail(process.log_path, _TAIL_LINES)
                    raise ServiceDied(f"the {name} ended with exit code {code}; the end of {process.log_path}:\n{end}")
            await asyncio.sleep(_CHECK_S)

    def stop(self) -> None:
        """Ends all of them, the broker last, and removes the topics from a Kafka that isn't ours."""
        for process in self._running.values():
            if isinstance(process, Child):
                process.terminate()
        for process in reversed(self._running.values()):
            process.stop()
        self._running.clear()
        if self.external_kafka and "OUSEL_KAFKA__EVENTS_TOPIC" in self._env:
            self._remove_topics()

    def _start(self, name: str, *arguments: str) -> None:
        env = os.environ | self._env | {"PYTHONUNBUFFERED": "1"}
        self._running[name] = Child(name, [sys.executable, *arguments], self._data_dir / f"{name}.log", env)

    def _remove_topics(self) -> None:
        with suppress(KafkaError, OSError):
            admin = KafkaAdminClient(**connection_settings(self.kafka) | {"bootstrap_timeout_ms": 2000})
            try:
                admin.delete_topics([self.kafka.events_topic, self.kafka.items_topic, self.kafka.dead_letters_topic])
            finally:
                admin.close()


def free_port(preferred: int) -> int:
    """`preferred` where nobody listens on it, else one that is free now."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            # Connections of an earlier run that are still winding down don't count as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((_HOST, port))
                return int(probe.getsockname()[1])
    raise OSError(f"no free port on {_HOST}")
