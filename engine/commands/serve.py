"""`ousel-engine serve`: reads the configuration, builds the parts, runs them until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import torch
import uvloop
from kafka.errors import KafkaError
from ousel.v1 import event_pb2

from engine import collector
from engine.arenas import limit_arenas
from engine.config import Config, ConfigError, load_config
from engine.descriptors import RESERVED, raise_limit
from engine.end_check import EndCheck
from engine.events.log_ends import KafkaLogEnds
from engine.events.opening import open_log, opening
from engine.events.producer import EventProducer
from engine.events.source import Assignment, SourceError
from engine.events.topic_reader import read_from_begin
from engine.failures import WrongValue, log_loop_failures, log_thread_failures, told
from engine.kernel_cache import report
from engine.log_start import start_log
from engine.model.device import check_device
from engine.partitions import Snapshots
from engine.pipeline import Pipeline
from engine.process_metrics import describe_build, describe_settings, watch_disk
from engine.readiness import ModelGate
from engine.registry.models import open_models
from engine.security.exposure import check_exposure, warn_of_exposure
from engine.serving.calls import log_clients_that_left
from engine.serving.errors import is_expected
from engine.serving.ports import PortTaken
from engine.serving.server import Server
from engine.serving.subscriptions import Subscriptions
from engine.snapshot.default_folder import folder_of_log, usual_name, with_folder
from engine.snapshot.lock import EngineLock
from engine.snapshot.settings import fingerprint
from engine.snapshot.store import SnapshotError, SnapshotStore
from engine.tracing import spans

_log = logging.getLogger("engine")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

OpenSnapshots = Callable[[Assignment], Snapshots]


def serve(config: Path | None) -> None:
    """Follows the log and answers with recommendations until interrupted.

    Args:
        config: the file of settings.
    """
    try:
        settings = load_config(config)
        check_device("inference.device", settings.inference.device)
        check_exposure(settings)
    except ValueError as error:
        raise WrongValue(f"ousel-engine: {error}") from None
    start_log(settings)
    log_thread_failures()
    warn_of_exposure(settings)
    report.log(_log)
    describe_build("engine")
    describe_settings(settings)
    limit_arenas()
    raise_limit(max(settings.serving.max_streams, settings.serving.max_connections) + RESERVED)
    torch.set_num_threads(settings.model.threads)
    # The engine's thread computes while the event loop answers: hand the interpreter over sooner than every 5 ms. The
    # thread gives it away in each call of a library and waits as long to have it back: of 0.2 ms each, lists took a
    # quarter longer and a click waited 8 ms more.
    sys.setswitchinterval(0.00002)
    collector.set_aside()
    collector.collect_old_rarely()
    try:
        with ExitStack() as held:
            spans.start(settings.traces, engine_name(settings))
            held.callback(spans.stop)
            snapshots = _snapshots(settings, held)
            uvloop.run(_serve(settings, snapshots))
    except ConfigError as error:
        raise WrongValue(f"ousel-engine: {error}") from None
    except (PortTaken, SnapshotError, SourceError) as error:
        raise SystemExit(f"ousel-engine: {error}") from None


def _snapshots(config: Config, held: ExitStack) -> OpenSnapshots | None:
    """The way to the snapshots; `held` has the lock on this engine's name among them."""
    chosen = with_folder(config.snapshot)
    if chosen is None or chosen.dir is None:
        return None
    folder, shared = chosen.dir, config.snapshot.dir is None
    watch_disk("snapshots", folder)
    name = engine_name(config)
    started_ms = time.time_ns() // 1_000_000

    def open_for(assignment: Assignment) -> Snapshots:
        partitions = assignment.totals.get(config.kafka.events_topic, 1)
        settings = fingerprint(config.state, config.events, config.kafka, partitions)
        own = folder
        if shared:
            own = folder_of_log(folder, assignment.identity, config.kafka.events_topic, started_ms)
        return SnapshotStore(chosen.model_copy(update={"dir": own}), name, settings, assignment.identity)

    if not shared:
        open_for(Assignment({}, {}))  # so that a folder that can't be used is said at once
    try:
        held.enter_context(closing(EngineLock(folder, name)))
    except SnapshotError as error:
        if not shared:
            raise
        _log.warning("no snapshots are kept, and every start reads the whole log: %s", error)
        return None
    return open_for


def engine_name(config: Config) -> str:
    """The name of this engine in the folder of snapshots, in the registry of models and in traces."""
    return config.snapshot.engine or usual_name(socket.gethostname(), config.serving.port)


async def _serve(config: Config, snapshots: OpenSnapshots | None) -> None:
    loop = asyncio.get_running_loop()
    log_loop_failures(loop, is_expected)
    log_clients_that_left()
    stopping = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, _stop, loop, stopping)

    follower = _Follower(config, snapshots, loop, stopping)
    server = Server(config, follower.pipeline, follower.subscriptions, follower, follower.models)

    def ready() -> None:
        collector.set_aside()  # The state that was replayed stays.
        asyncio.run_coroutine_threadsafe(server.set_serving(True), loop)

    def unready() -> None:
        asyncio.run_coroutine_threadsafe(server.set_serving(False), loop)

    follower.on_ready, follower.on_unready = ready, unready
    await server.start()
    _log.info("gRPC on %s:%d, metrics on %s:%d/metrics", config.serving.host, server.port,
              config.serving.metrics_host, server.metrics_port)  # fmt: skip
    if server.health_port is not None:
        _log.info("health on %s:%d", config.serving.health_host, server.health_port)
    follower.start()
    try:
        await stopping.wait()
    finally:
        # An engine whose thread has failed makes no lists any more, so nobody is kept with it.
        await server.stop(config.serving.grace_s, 0.0 if follower.failure else config.serving.drain_s)
        # The last snapshot comes after the last answer.
        await asyncio.to_thread(follower.stop)
    if follower.failure:
        raise follower.failure


def _stop(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Has the engine stop in its order; the next signal ends the process at once."""
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    _log.info("stopping: health says NOT_SERVING, then streams end, then calls, then comes the last snapshot; a second"
              " signal ends the process at once")  # fmt: skip
    stopping.set()


class _Follower:
    """The engine's thread from first connection to the end, and the way to the log for events tracked by gRPC."""

    def __init__(
        self,
        config: Config,
        snapshots: OpenSnapshots | None,
        loop: asyncio.AbstractEventLoop,
        stopping: asyncio.Event,
    ) -> None:
        self._config = config
        self._loop = loop
        self._stopping = stopping
        self._stop = threading.Event()
        self._producer: EventProducer | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.subscriptions = Subscriptions(config.serving.max_streams, wake=lambda: self.pipeline.wake())
        gate = ModelGate()
        self.pipeline = Pipeline(
            config,
            self.subscriptions,
            snapshots,
            on_ready=lambda: self.on_ready(),
            on_unready=lambda: self.on_unready(),
            read_items=partial(read_from_begin, config.kafka),
            models=gate,
        )
        self.models = open_models(config, self.pipeline.installer, gate, engine_name(config))
        self.failure: Exception | None = None
        self.on_ready: Callable[[], object] = lambda: None
        self.on_unready: Callable[[], object] = lambda: None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self.models.stop()
        self.pipeline.wake()
        self._thread.join()
        self.pipeline.close()

    def send_event(self, event: event_pb2.Event) -> Future[event_pb2.LogPosition]:
        return self._connected().send_event(event)

    def send_forget(self, event: event_pb2.Event) -> list[Future[event_pb2.LogPosition]]:
        return self._connected().send_forget(event)

    def _connected(self) -> EventProducer:
        if self._producer is None:
            raise ConnectionError(f"not connected to Kafka at {self._config.kafka.bootstrap} yet")
        return self._producer

    def _run(self) -> None:
        kafka = self._config.kafka
        try:
            traced = self._config.traces.endpoint is not None
            with opening(kafka, partial(open_log, kafka, traced=traced), self._stop, _log.warning) as log:
                if log is None:
                    return
                self._producer = log.producer
                self.models.start()
                with closing(EndCheck(self.pipeline.waiting, KafkaLogEnds(kafka))):
                    self.pipeline.run(log.source, log.dead_letters, self._stop)
        except (SourceError, KafkaError) as error:
            self.failure = SourceError(str(error))
        except SnapshotError as error:
            self.failure = error
        except (OSError, MemoryError) as error:
            self.failure = SourceError(f"the engine's thread failed: {told(error)}")
        except Exception as error:
            _log.exception("the engine's thread failed")
            self.failure = SourceError(f"the engine's thread failed: {error!r}")
        finally:
            self._loop.call_soon_threadsafe(self._stopping.set)
