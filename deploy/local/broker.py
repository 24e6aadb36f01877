"""The embedded broker: one process that speaks the Kafka protocol, so that a first try needs no Kafka.

    python -m deploy.local.broker --port 9092 --data-dir build/broker

It keeps everything in one JSON file under its data folder, which is right for a demo and tests and for nothing bigger.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from deploy.local.processes import dying_with_parent

_HOST = "127.0.0.1"
_START_S = 20.0
_STOP_S = 10.0
_LISTENING = re.compile(rf"^\s*kafka\s+{re.escape(_HOST)}:(\d+)\s*$", re.MULTILINE)


class BrokerError(RuntimeError):
    """The broker can't be started; the message has the end of its log."""


class EmbeddedBroker:
    """One running broker on the loopback. A context manager; construction starts it and waits until it answers.

    Args:
        data_dir: folder of its data and its log; created where missing. Data found there is served again.
        port: 0 takes a free one.

    Raises:
        BrokerError: it isn't installed, ended at once, or does not answer within 20 s.
    """

    name = "the embedded broker"

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path = data_dir / "broker.log"
        command = [str(_binary()), "start", "--data-dir", str(data_dir), "--only", "kafka"]
        command += ["--host", _HOST, "--kafka-port", str(port)]
        with self.log_path.open("wb") as log:
            # A session of its own: Ctrl-C reaches the parent alone, which then stops its parts in order.
            self._process = subprocess.Popen(
                dying_with_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.port = self._wait_until_ready(time.monotonic() + _START_S)
        except BaseException:
            self.kill()
            raise

    @property
    def bootstrap(self) -> str:
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def client_settings(self) -> dict[str, Any]:
        """The fields of `KafkaConfig` that reach it, as plain values."""
        return {"bootstrap": self.bootstrap}

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the process to end by itself. Returns its exit code, or None after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Ends the broker with its data saved; kills it where that takes more than 10 s. Safe to call twice."""
        self._process.terminate()
        if self.wait(_STOP_S) is None:
            self.kill()

    def kill(self) -> None:
        """Ends the broker at once, as a crash would. Safe to call twice."""
        self._process.kill()
        self._process.wait()

    def log_tail(self, lines: int = 5) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self, deadline: float) -> int:
        tick = threading.Event()
        while time.monotonic() < deadline:
            code = self._process.poll()
            if code is not None:
                raise BrokerError(f"the embedded broker ended with exit code {code}:\n{self.log_tail()}")
            # Its own line names the port: it alone knows which free one it took, and another process may answer there.
            listening = _LISTENING.search(self.log_path.read_text(errors="replace"))
            if listening and _answers(int(listening[1])):
                return int(listening[1])
            tick.wait(0.02)
        raise BrokerError(f"the embedded broker did not answer within {_START_S:g} s:\n{self.log_tail()}")


def _binary() -> Path:
    """The program itself: signals would not pass through the script that the package installs beside it."""
    try:
        path = Path(str(files("noida_db"))) / "noida-db"
    except ModuleNotFoundError:
        raise BrokerError('the embedded broker is not installed; run: pip install "ousel-engine[demo]"') from None
    if not os.access(path, os.X_OK):
        path.chmod(0o755)
    return path


def _answers(port: int) -> bool:
    try:
        KafkaConsumer(bootstrap_servers=f"{_HOST}:{port}", bootstrap_timeout_ms=2000, enable_auto_commit=False).close()
    except KafkaError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.broker", description="A small Kafka-protocol broker.")
    parser.add_argument("--port", type=int, default=9092, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--data-dir", type=Path, default=Path("build/broker"), help="(default: %(default)s)")
    args = parser.parse_args()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a shell starts what it puts in the background with that one ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with EmbeddedBroker(args.data_dir, args.port) as broker:
            print(f"Kafka protocol at {broker.bootstrap}, data in {args.data_dir}; Ctrl-C ends it", flush=True)
            code = broker.wait()
            print(f"the embedded broker ended with exit code {code}:\n{broker.log_tail()}", file=sys.stderr)
            return 1
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
