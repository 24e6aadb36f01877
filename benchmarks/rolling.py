"""Whether a rolling restart of two engines costs a call or a stream.

Two engines follow one log. One client knows both: it holds streams open and makes calls at a steady rate, one in ten of
which writes an event, with nothing but the retries and the resumption that it ships with. Each engine in turn is told
to end (SIGTERM), and started again on its port once it has; the next one follows when its health says SERVING. After
that each stream must still bring a list for a new event of its user.

The floor is the same load while nobody restarts. A rolling restart passes where no call has failed, no stream has ended
and none is silent; the waits of calls are shown beside those of the floor.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # or what it does at a fork ends the processes started here

import asyncio
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

from ousel.v1 import catalog_pb2, event_pb2

from benchmarks.recovery_engine import EngineError, KillableEngine, environment
from benchmarks.report import Figure, report, shown
from benchmarks.rolling_load import RollingLoad, Seen
from deploy.local.brokers import Broker, start_broker
from engine.config import Config, KafkaConfig, SnapshotConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics

USERS = [f"u{number}" for number in range(500)]
ITEMS = [f"i{number:03}" for number in range(300)]
_EVENTS = 5000
_STOP_S = 60.0
_SETTLED_S = 3.0  # between two restarts, and before the first


class Pair:
    """Two engines of one log, each on a port of its own that it keeps when it is started again."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._ports = [_free_port(), _free_port()]
        self._starts = 0
        self._engines = [self._started(which) for which in range(2)]
        for engine in self._engines:
            engine.wait_until_serving()

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._ports]

    def restart(self, which: int) -> None:
        """Ends one in its order, starts it again, and waits until it serves."""
        self._engines[which].stop(_STOP_S)
        self._engines[which] = self._started(which)
        self._engines[which].wait_until_serving()

    def close(self) -> None:
        for engine in self._engines:
            engine.close()

    def _started(self, which: int) -> KillableEngine:
        self._starts += 1
        variables = environment(self._config) | {
            "OUSEL_SERVING__PORT": str(self._ports[which]),
            "OUSEL_SNAPSHOT__ENGINE": f"rolling-{which}",
        }
        return KillableEngine(self._config, self._folder / f"engine-{which}-{self._starts}.log", variables)


def under_load(load: RollingLoad, pair: Pair, rounds: int, settled_s: float) -> Seen:
    """Counts how calls and streams fare while each engine of the pair is restarted so many times.

    The load has a thread of its own, because the engines are started by the main one: Linux ends a process with the
    thread that has started it.
    """
    begun, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, load.run(begun, done))
        try:
            if not begun.wait(_STOP_S):
                raise EngineError("not every stream has had a list")
            done.wait(settled_s)
            for _ in range(rounds):
                for which in range(2):
                    pair.restart(which)
                    done.wait(settled_s)
        finally:
            done.set()
        return running.result()


def fill(kafka: KafkaConfig) -> None:
    """A catalog, and events of all users."""
    with closing(EventProducer(kafka)) as producer:
        sent = [producer.send_item(catalog_pb2.Item(item_id=item, title=f"Title {item}")) for item in ITEMS]
        tracked = [
            producer.send_event(
                event_pb2.Event(user_id=USERS[at % len(USERS)], item_id=ITEMS[at * at % len(ITEMS)], kind="view")
            )
            for at in range(_EVENTS)
        ]
        for future in (*sent, *tracked):
            future.result(_STOP_S)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the load, and one restart of each engine")
    parser.add_argument("--streams", type=int, default=100, help="that are held open (default: %(default)s)")
    parser.add_argument("--calls", type=float, default=200.0, help="per second (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="restarts of each engine (default: %(default)s)")
    args = parser.parse_args()
    if args.quick:
        args.streams, args.calls, args.rounds = args.streams // 5, args.calls / 5, 1
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ousel-rolling-")))
        broker: Broker = start_broker(folder / "broker")
        opened.callback(broker.stop)
        config = Config(
            kafka=KafkaConfig(**broker.client_settings()), snapshot=SnapshotConfig(dir=folder / "snapshots")
        )
        ensure_topics(config.kafka)
        fill(config.kafka)
        pair = opened.enter_context(closing(Pair(config, folder)))

        def load() -> RollingLoad:
            return RollingLoad(pair.addresses, USERS, ITEMS, args.streams, args.calls)

        floor = under_load(load(), pair, 0, 2 * _SETTLED_S)
        began_s = time.monotonic()
        seen = under_load(load(), pair, args.rounds, _SETTLED_S)
        seconds = time.monotonic() - began_s
    return _report(args, floor, seen, seconds, broker.name)


def _report(args: argparse.Namespace, floor: Seen, seen: Seen, seconds: float, broker: str) -> int:
    figures: dict[str, Figure] = {
        "restarts": 2 * args.rounds,
        "seconds": round(seconds, 1),
        "calls": seen.calls,
        "calls_per_s": round(seen.calls / seconds, 1),
        "failed_calls": seen.failed.total(),
        "call_p50_ms": seen.wait_ms(0.5),
        "call_p99_ms": seen.wait_ms(0.99),
        "call_max_ms": seen.wait_ms(1.0),
        "floor_call_p50_ms": floor.wait_ms(0.5),
        "floor_call_p99_ms": floor.wait_ms(0.99),
        "floor_failed_calls": floor.failed.total(),
        "streams": args.streams,
        "streams_resumed": seen.opened - args.streams,
        "broken_streams": seen.broken.total(),
        "silent_streams": seen.silent,
        "broker": broker,
    }
    rows = [
        ("restarts, and seconds that they took", f"{figures['restarts']} in {figures['seconds']} s"),
        ("calls, and those that failed", f"{seen.calls:,}, {figures['failed_calls']}"),
        ("their wait, p50, p99 and longest, in ms", shown(figures, "call_p50_ms", "call_p99_ms", "call_max_ms")),
        ("the floor: nobody restarts", f"{figures['floor_call_p50_ms']} and {figures['floor_call_p99_ms']} ms"),
        ("streams, and times that one was resumed", f"{args.streams}, {figures['streams_resumed']}"),
        ("streams that ended, or were silent", f"{figures['broken_streams']}, {figures['silent_streams']}"),
    ]  # fmt: skip
    for kind, found in (("call", seen.failed), ("stream", seen.broken)):
        for text, count in found.most_common(5):
            print(f"{count} times a {kind} ended with {text}", file=sys.stderr)
    report("rolling", "A rolling restart of two engines", rows, figures)
    return 1 if seen.failed or seen.broken or seen.silent else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
