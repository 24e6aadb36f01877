"""Apache Kafka as one process on the loopback, for tests and benchmarks: the real thing, with TLS and SASL on request.

It runs from a folder that holds Kafka's jars in `libs/`, with plain `java` and settings of its own; nothing is
installed. Data, settings, certificates and log lie in the data folder, and what lies there is served again.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.local.broker import BrokerError
from deploy.local.certificates import CertificateError, issue_certificates
from deploy.local.processes import Child, tail

_HOST = "127.0.0.1"
_FORMAT_S = 60.0
_START_S = 60.0
_STOP_S = 20.0
_STARTED = "Kafka Server started"

_LOGGING = """\
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %-5p %c{1}: %m%n
"""


class ApacheKafka:
    """One running broker, its own controller. A context manager; construction starts it and waits until it serves.

    Args:
        data_dir: created where missing. Data found there is served again.
        port: 0 takes a free one.
        home: the folder whose `libs/` holds Kafka's jars.
        tls: clients must speak TLS; the authority that signed the certificate is at `ca_path`.
        sasl: user and password that clients must give by SASL/PLAIN; neither may have quotes or backslashes.

    Attributes:
        name: which Kafka this is, for people.
        ca_path: PEM file of the throw-away authority; None without TLS.

    Raises:
        BrokerError: there is no Kafka at `home`, no java, or it does not start within a minute.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        home: Path,
        tls: bool = False,
        sasl: tuple[str, str] | None = None,
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._sasl = sasl
        self._protocol = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
        version = _version(home)
        self.name = f"Apache Kafka {version}" + ("" if self._protocol == "PLAINTEXT" else f" over {self._protocol}")
        self._java = [_java(), "-cp", f"{home.resolve()}/libs/*"]
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path = self._data_dir / "broker.log"
        self.ca_path = self._certificates() if tls else None
        self.port, internal, controller = _free_ports(port)
        self._settings = self._write_settings(internal, controller)
        self._format()
        self._child = self._start()

    @property
    def bootstrap(self) -> str:
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self._child.pid

    def client_settings(self) -> dict[str, Any]:
        """The fields of `KafkaConfig` that reach it, as plain values."""
        settings: dict[str, Any] = {"bootstrap": self.bootstrap, "security_protocol": self._protocol}
        if self.ca_path is not None:
            settings["ssl_cafile"] = self.ca_path
        if self._sasl is not None:
            username, password = self._sasl
            settings |= {"sasl_mechanism": "PLAIN", "sasl_username": username, "sasl_password": password}
        return settings

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the process to end by itself. Returns its exit code, or None after `timeout_s`."""
        return self._child.wait(timeout_s)

    def stop(self) -> None:
        """Ends the broker in order; kills it where that takes more than 20 s. Safe to call twice."""
        self._child.stop(_STOP_S)

    def kill(self) -> None:
        """Ends the broker at once, as a crash would. Safe to call twice."""
        if self._child.wait(0) is None:
            os.kill(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def log_tail(self, lines: int = 5) -> str:
        return self._child.log_tail(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _certificates(self) -> Path:
        folder = self._data_dir / "tls"
        try:
            return issue_certificates(folder)
        except CertificateError as error:
            raise BrokerError(str(error)) from error

    def _write_settings(self, internal: int, controller: int) -> Path:
        # Clients have a listener of their own, so that TLS and SASL concern nobody but them.
        settings: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{_HOST}:{controller}",
            "listeners": f"CLIENT://{_HOST}:{self.port},INTERNAL://{_HOST}:{internal},CONTROLLER://{_HOST}:{controller}",
            "advertised.listeners": f"CLIENT://{_HOST}:{self.port},INTERNAL://{_HOST}:{internal}",
            "listener.security.protocol.map": f"CLIENT:{self._protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self._data_dir / "data",
            # One node: nothing can be replicated.
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            # Tests wait for these: a first member need not wait for a second, nor a restart for the old session.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "broker.heartbeat.interval.ms": 250,
            "broker.session.timeout.ms": 1500,
            "log.cleaner.backoff.ms": 200,
        }
        if self._sasl is not None:
            username, password = self._sasl
            if any(mark in username + password for mark in "\"'\\ "):
                raise BrokerError("user and password must have no quotes, backslashes or spaces")
            module = "org.apache.kafka.common.security.plain.PlainLoginModule"
            settings["sasl.enabled.mechanisms"] = "PLAIN"
            settings["listener.name.client.plain.sasl.jaas.config"] = f'{module} required user_{username}="{password}";'
        if self.ca_path is not None:
            settings["listener.name.client.ssl.keystore.type"] = "PEM"
            settings["listener.name.client.ssl.keystore.location"] = self.ca_path.parent / "server.pem"
        path = self._data_dir / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self._data_dir / "logging.properties").write_text(_LOGGING)
        return path

    def _format(self) -> None:
        """Gives the data folder its identity, which Kafka asks for before the first start."""
        if (self._data_dir / "data" / "meta.properties").exists():
            return
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One argument: an identity may begin with a dash, which would be taken for an option.
        command = [*self._java, "kafka.tools.StorageTool", "format"]
        command += [f"--cluster-id={cluster_id}", "-c", str(self._settings)]
        child = Child("kafka-format", command, self.log_path)
        try:
            code = child.wait(_FORMAT_S)
        finally:
            child.stop()
        if code != 0:
            raise BrokerError(f"Apache Kafka can't prepare {self._data_dir}:\n{tail(self.log_path, 10)}")

    def _start(self) -> Child:
        jvm = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC"]
        jvm += [f"-Dlog4j2.configurationFile=file:{self._data_dir}/logging.properties"]
        command = [self._java[0], *jvm, *self._java[1:], "kafka.Kafka", str(self._settings)]
        child = Child("kafka", command, self.log_path)
        try:
            self._wait_until_ready(child, time.monotonic() + _START_S)
        except BaseException:
            child.stop(0)
            raise
        return child

    def _wait_until_ready(self, child: Child, deadline: float) -> None:
        tick = threading.Event()
        while time.monotonic() < deadline:
            code = child.wait(0)
            if code is not None:
                raise BrokerError(f"Apache Kafka ended with exit code {code}:\n{child.log_tail(20)}")
            if _STARTED in self.log_path.read_text(errors="replace"):
                return
            tick.wait(0.05)
        raise BrokerError(f"Apache Kafka did not start within {_START_S:g} s:\n{child.log_tail(20)}")


def _version(home: Path) -> str:
    """The version of Kafka at a folder, as the jar of its clients says it."""
    jars = sorted((home / "libs").glob("kafka-clients-*.jar"))
    if not jars:
        raise BrokerError(f"KAFKA_HOME must name a folder whose libs/ holds Apache Kafka's jars, got {str(home)!r}")
    return jars[0].stem.removeprefix("kafka-clients-")


def _java() -> str:
    path = shutil.which("java")
    if path is None:
        raise BrokerError("Apache Kafka needs java 17 or newer on the PATH")
    done = subprocess.run([path, "-version"], capture_output=True, check=False)
    if done.returncode != 0:
        raise BrokerError(f"Apache Kafka needs a java that runs, {path} -version ended with {done.returncode}")
    return path


def _free_ports(port: int) -> tuple[int, int, int]:
    """The given port, or a free one for 0, and two more free ones."""
    with ExitStack() as held:
        ports = [held.enter_context(socket.create_server((_HOST, 0))).getsockname()[1] for _ in range(3)]
    return port or ports[0], ports[1], ports[2]
