"""The faults of the rehearsal: what each does, how it ends, and the alerts that it must bring.

Most are done to the processes of a shop. What can't be brought about from outside within minutes, such as a graph that
loses items, is shown by stand-ins: this process serves the metrics of an engine and of a trainer, the very objects of
`engine.metrics` and `trainer.metrics`, and sets them to what such a fault would show.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from typing import NamedTuple

import ousel
from kafka import KafkaProducer
from ousel.v1 import event_pb2

from deploy.prometheus.world import ITEMS, Shoppers, World
from engine import metrics
from engine.events.producer import EventProducer
from trainer import metrics as trainer_metrics
from trainer.push import PushError, WeightsFile, push

PROCESS, STAND_IN = "the shop's processes", "a stand-in's metrics"
# So long a stop misses the objectives of calls and lists, and what is between two is enough for a scrape.
_STALL_S, _WORK_S = 0.7, 0.3
_STALLED_CALLS, _USUAL_CALLS = 3, 21


class Fault(NamedTuple):
    """A fault.

    Attributes:
        alerts: that it must bring, and that must clear after it.
        what: is done.
        begin, end: do it, and undo it.
        by: what it is done to.
        lasting: its windows are so long that others go on while it clears.
    """

    alerts: tuple[str, ...]
    what: str
    begin: Callable[[], object]
    end: Callable[[], object]
    by: str = PROCESS
    lasting: bool = False


class Stalls:
    """Stops the engine for moments in which it works on calls and events come, as a machine does that is far too busy.

    A call that comes while the engine stands still would show nothing: by the engine's own clock it begins when that
    goes on. So it is stopped in the middle of calls. An event is as old as its record, which the broker dates.
    """

    def __init__(self, world: World, shoppers: Shoppers) -> None:
        self._world, self._shoppers = world, shoppers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with (
            closing(EventProducer(self._world.kafka)) as producer,
            ousel.Client(self._world.address, timeout_s=5.0) as client,
            ThreadPoolExecutor(_STALLED_CALLS) as callers,
        ):
            middle_s = statistics.median(_timed(client) for _ in range(_USUAL_CALLS)) / 2
            while not self._over.wait(_WORK_S):
                calls = [callers.submit(_timed, client) for _ in range(_STALLED_CALLS)]
                time.sleep(middle_s)
                self._stall(producer)
                wait(calls)

    def _stall(self, producer: EventProducer) -> None:
        pid = self._world.engine_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            for user in self._shoppers.streaming:
                producer.send_event(event_pb2.Event(user_id=user, item_id=random.choice(ITEMS), kind="view"))
            time.sleep(_STALL_S)
        finally:
            os.kill(pid, signal.SIGCONT)


def _timed(client: ousel.Client) -> float:
    """Seconds of a call of Recommend; one that is refused counts, too."""
    began_s = time.monotonic()
    with suppress(ousel.OuselError):
        client.recommend("user1", k=10)
    return time.monotonic() - began_s


class Hammer:
    """More calls at once than an engine takes that lets few wait."""

    def __init__(self, address: str, threads: int = 24) -> None:
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with ousel.Client(self._address, timeout_s=2.0) as client:
            while not self._over.is_set():
                with suppress(ousel.OuselError):
                    client.recommend("user1", k=10)


def stand_in_at_rest() -> None:
    """Sets the stand-ins' metrics to what a healthy engine and trainer show."""
    now_s = time.time()
    for gauge in (metrics.READY, metrics.CAUGHT_UP, metrics.KAFKA_REACHABLE, metrics.MODEL_VERSION):
        gauge.set(1)
    metrics.MODEL_TIME.set(now_s)
    metrics.INDEX_SIZE.set(1000)
    metrics.INDEX_LIVE_RECALL.set(0.999)
    metrics.MEMORY_LIMIT.set_function(lambda: 1e12)
    metrics.STEP_FAILURES.labels("publish")
    trainer_metrics.PUSHES.labels("failed")
    metrics.HELD.labels("ousel.events", "0").set(0)
    metrics.LAG.labels("ousel.events", "0").set(0)
    metrics.RECORDS_POLLED.labels("ousel.events").inc(1000)
    for outcome in ("finished", "diverged"):
        trainer_metrics.LAST_OUTCOME.labels(outcome).set(outcome == "finished")


def stand_in_faults() -> list[Fault]:
    """The faults that only metrics can show."""

    def gauge(alert: str, what: str, set_to: Callable[[float], object], wrong: float, right: float) -> Fault:
        return Fault((alert,), what, lambda: set_to(wrong), lambda: set_to(right), STAND_IN)

    def counter(alert: str, what: str, raise_it: Callable[[], object]) -> Fault:
        return Fault((alert,), what, raise_it, lambda: None, STAND_IN)

    diverged = trainer_metrics.LAST_OUTCOME.labels("diverged")
    soon_s, later_s = time.time() + 3600, time.time() + 10 * 365 * 86_400
    return [
        gauge("OuselLagGrows", "a million records wait", metrics.LAG.labels("ousel.events", "0").set, 1e6, 0),
        gauge("OuselPartitionHeld", "a codec is missing", metrics.HELD.labels("ousel.events", "0").set, 1, 0),
        gauge("OuselTopicProblem", "a topic's retention is short", metrics.TOPIC_PROBLEMS.set, 1, 0),
        gauge("OuselDeadLettersNotWritten", "letters wait", metrics.DEAD_LETTERS_PENDING.set, 5, 0),
        counter("OuselStepsFail", "a list can't be made", metrics.STEP_FAILURES.labels("publish").inc),
        gauge("OuselMemoryNearLimit", "the limit is what is held",
              lambda limit: metrics.MEMORY_LIMIT.set_function(lambda: limit), 1e6, 1e12),
        gauge("OuselCertificateExpires", "an hour is left", metrics.CERTIFICATE_EXPIRY.set, soon_s, later_s),
        gauge("OuselTokensFileProblem", "a new file of tokens is damaged", metrics.TOKENS_FILE_PROBLEM.set, 1, 0),
        gauge("OuselRegistryProblem", "the registry can't be reached", metrics.REGISTRY_PROBLEM.set, 1, 0),
        counter("OuselCertificateNotReloaded", "a new key is damaged", metrics.CERTIFICATE_RELOAD_FAILURES.inc),
        gauge("OuselModelTooOld", "no model for two days",
              lambda age_s: metrics.MODEL_TIME.set(time.time() - age_s), 172_800, 0),
        gauge("OuselIndexRecallFallen", "recall is 0.9", metrics.INDEX_LIVE_RECALL.set, 0.9, 0.999),
        gauge("OuselIndexItemsUnreachable", "50 of 1,000 are lost", metrics.INDEX_UNREACHABLE.set, 50, 0),
        counter("OuselIndexRebuildsFail", "a rebuild fails", metrics.INDEX_REBUILD_FAILURES.inc),
        gauge("OuselTrainingFails", "a training diverges", diverged.set, 1, 0),
        counter("OuselPushesFail", "a push fails", trainer_metrics.PUSHES.labels("failed").inc),
    ]  # fmt: skip


def no_model(world: World) -> Fault:
    return Fault(("OuselNoModel",), "no model is pushed", lambda: None, lambda: world.push_model())


def busy_machine(world: World, shoppers: Shoppers) -> list[Fault]:
    """Calls and lists that come late, and calls that are refused."""
    stalls, hammer = Stalls(world, shoppers), Hammer(world.address)
    late = ("OuselFreshnessBurnsFast", "OuselFreshnessBurnsSlowly", "OuselLatencyBurnsFast", "OuselLatencyBurnsSlowly")
    return [
        Fault(late, "the engine is stopped again and again", stalls.begin, stalls.end, lasting=True),
        Fault(("OuselOverloaded",), "24 callers call at once, 4 may wait", hammer.begin, hammer.end, lasting=True),
    ]


def bad_input(world: World, shoppers: Shoppers) -> list[Fault]:
    """Records that break a rule, a push of no model, calls that nothing answers, a full disk, and a trainer's end."""

    def bad_records() -> None:
        producer = KafkaProducer(bootstrap_servers=world.broker.bootstrap)
        for _ in range(3):
            producer.send(world.kafka.events_topic, b"\xff\xffno event")
        producer.close()

    def bad_push() -> None:
        with suppress(PushError):
            push(world.address, WeightsFile(b"no model" * 100), 1000, 60.0)

    def empty(share: float) -> Callable[[], None]:
        def ask() -> None:
            shoppers.empty = share

        return ask

    def kill_trainer() -> None:
        assert world.trainer is not None
        os.kill(world.trainer.pid, signal.SIGKILL)
        world.trainer.wait()

    disk = ("OuselDiskNearlyFull", "OuselSnapshotsFail", "OuselSnapshotOld")
    return [
        Fault(("OuselDeadLetters",), "three records are no events", bad_records, lambda: None),
        Fault(("OuselModelRefused",), "what is pushed is no model", bad_push, lambda: None),
        Fault(("OuselListsEmpty",), "calls ask for a category of no item", empty(0.5), empty(0.0)),
        Fault(disk, "the disk of the snapshots is full", world.fill_disk, world.clear_disk),
        Fault(("OuselTrainerMissing",), "the trainer is killed", kill_trainer, world.start_trainer),
    ]


def broker_away(world: World) -> Fault:
    alerts = ("OuselKafkaUnreachable", "OuselNotReady", "OuselCallsFailFast", "OuselCallsFailSlowly")
    broker = world.broker.pid
    return Fault(
        alerts, "the broker is stopped", lambda: os.kill(broker, signal.SIGSTOP),
        lambda: os.kill(broker, signal.SIGCONT), lasting=True,
    )  # fmt: skip


def worse_lists(shoppers: Shoppers) -> Fault:
    def hits(share: float) -> Callable[[], None]:
        def look() -> None:
            shoppers.hits = share

        return look

    return Fault(("OuselHitRateFallen",), "people look at what no list holds", hits(0.02), hits(0.6))


def engine_gone(world: World) -> Fault:
    def kill() -> None:
        os.kill(world.engine_pid, signal.SIGKILL)
        assert world.engine is not None
        world.engine.wait()

    return Fault(("OuselEngineMissing",), "the engine is killed", kill, world.start_engine)
