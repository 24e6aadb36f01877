"""`soak --hostile`: an engine under callers and producers who mean no good, or who know no better.

For 15 minutes, 5 with --quick, an engine follows a broker with 100 streams open. Good events, well-behaved calls and 15
pushes of a model, evenly spaced, go on all the time, and so does bad input (`soak_input`). Beside them other callers
come in segments of half a minute: in one of three as many harmless ones, in the others hostile ones (`soak_attacks`).

    lost                 records of the events and items topics that no counter of the engine accounts for at the end:
                         wanted 0
    calm_p99_ratio       p99 of the well-behaved calls beside hostile callers, over that beside harmless ones: wanted
                         at most 2
    slope_mb_per_min     of the least memory of the engine between one push and the next, over the second half, by least
                         squares: wanted < 0.5, or below
    slope_error          two standard errors of it. A push empties the caches of sessions, which take 130 MB once they
                         are full again. So the seconds between two pushes rise like a saw's tooth and are no
                         independent measurements; from one tooth to the next, like is compared with like
    threads, files       of the engine before and after: wanted within 5

It ends with 1 where one of them is not as wanted, or a well-behaved call failed otherwise than by a refusal.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import ousel
import torch
from kafka import KafkaConsumer, TopicPartition

from benchmarks.freshness_load import Producer
from benchmarks.recovery_engine import KillableEngine
from benchmarks.report import Figure, report, shown
from benchmarks.shop_log import Events, item_id, user_id
from benchmarks.soak_attacks import harmless
from benchmarks.soak_engine import (
    ITEMS,
    TIMEOUT_S,
    USERS,
    VISITORS,
    Watch,
    drain,
    least_of_each,
    push_model,
    slope,
    soak_config,
    write_log,
)
from benchmarks.soak_input import BadInput
from benchmarks.talker import Talker
from deploy.local.brokers import start_broker
from engine.config import Config, KafkaConfig
from engine.events.connection import connection_settings
from engine.events.topics import ensure_topics

_SEGMENT_S = 30.0
_WARM_S = 20.0
_EVENTS_PER_S, _BAD_PER_S = 200.0, 30.0
_CALLS_PER_S, _TRACK_PER_S = 20, 5
_PUSHES = 15
_PUSH_AGAIN_S = 5.0
_SETTLE_S = 120.0  # for what hostile callers leave behind to end
_COUNT_S = 30.0  # for records that were written last to be polled and counted
_WITHIN = 5  # threads and descriptors


class CalmCalls:
    """Well-behaved calls at a steady rate, in a thread of its own, in a `with`: how late each was, and at what time."""

    def __init__(self, address: str) -> None:
        self.late_s: list[tuple[float, float]] = []  # by time.monotonic at the call's beginning
        self.refused = 0
        self.failures: list[str] = []
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="calm", daemon=True)

    def __enter__(self) -> CalmCalls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the calls. Safe to call twice."""
        self._stop.set()
        self._thread.join()

    def p99_ms(self, began_s: float, *, calm: bool) -> float:
        """Of the calls from `began_s` on that were made beside harmless callers, or beside hostile ones."""
        late_s = [
            late_s
            for at_s, late_s in self.late_s
            if at_s >= began_s and harmless(at_s, began_s, _SEGMENT_S) == calm and _settled(at_s, began_s)
        ]
        return 1000 * float(np.percentile(late_s, 99)) if late_s else float("nan")

    def _run(self) -> None:
        draw, turn = np.random.default_rng(5), 0
        with ousel.Client(self._address) as client:
            while not self._stop.wait(1 / _CALLS_PER_S):
                turn += 1
                user, began_s = user_id(int(draw.integers(USERS))), time.monotonic()
                try:
                    client.recommend(user, k=20)
                    self.late_s.append((began_s, time.monotonic() - began_s))
                    if turn % (_CALLS_PER_S // _TRACK_PER_S) == 0:
                        client.track(item_id(int(draw.integers(ITEMS))), user)
                except ousel.OuselError as error:
                    if "RESOURCE_EXHAUSTED" in str(error) or "try again later" in str(error):
                        self.refused += 1
                    else:
                        self.failures.append(f"call: {error}")


def _settled(at_s: float, began_s: float) -> bool:
    """Whether a moment is not one of the first of its segment, in which the callers of the segment before still end."""
    return (at_s - began_s) % _SEGMENT_S > _SEGMENT_S / 6


def soak_hostile(seconds: float) -> int:
    """Runs it; the exit status."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ousel-soak-") as folder, start_broker(Path(folder) / "broker") as broker:
        config = soak_config(broker.client_settings(), Path(folder))
        print(f"broker: {broker.name}", flush=True)
        ensure_topics(config.kafka)
        write_log(config.kafka)
        with closing(KillableEngine(config, Path(folder) / "engine.log")) as engine:
            engine.wait_until_serving()
            figures, wrong = _measure(config, engine, seconds)
    figures |= {"seconds": seconds, "broker": broker.name}
    wrong += _unwanted(figures)
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    _report(figures)
    return 1 if wrong else 0


def _measure(config: Config, engine: KillableEngine, seconds: float) -> tuple[dict[str, Figure], list[str]]:
    wrong: list[str] = []
    push_model(engine.address, 1, wrong)
    watch, metrics = Watch(engine), engine.metrics_address
    with Talker("benchmarks.soak_streams", engine.address, "0", "100") as streams, CalmCalls(engine.address) as calm:
        streams.line()
        time.sleep(_WARM_S)
        before = watch.handles()
        began_s = time.monotonic()
        arguments = [engine.address, metrics, *map(str, (began_s, _SEGMENT_S, seconds))]
        with (
            Producer(config.kafka, Events(USERS, ITEMS, 2, VISITORS), _EVENTS_PER_S, 0) as events,
            BadInput(config.kafka, USERS, ITEMS, _BAD_PER_S) as bad,
            Talker("benchmarks.soak_attacks", *arguments) as attacks,
        ):
            pushes = _push_and_watch(engine, watch, began_s, seconds, wrong)
            ended = Counter(json.loads(attacks.line()))
        calm.stop()  # Its events must not come while the log is compared with the counters.
        drain(engine)
        wrong += calm.failures + bad.failures
        after = _handles_at_rest(watch, before)
        lost = _lost(config.kafka, engine)
        streams.end()
    print(", ".join(f"{count:,} {kind}" for kind, count in sorted(ended.items())), flush=True)
    at_min, least_mb = least_of_each(watch.samples, began_s, seconds / _PUSHES)
    print("MB at least between pushes, second half: " + ", ".join(f"{one:,.0f}" for one in least_mb), flush=True)
    steep, error = slope(at_min, least_mb)
    beside_harmless, beside_hostile = (calm.p99_ms(began_s, calm=calm_) for calm_ in (True, False))
    return {
        "lost": lost,
        "slope_mb_per_min": round(steep, 2),
        "slope_error": round(error, 2),
        "threads_before": before[0],
        "threads_after": after[0],
        "files_before": before[1],
        "files_after": after[1],
        "calm_p99_ratio": round(beside_hostile / beside_harmless, 2),
        "calm_p99_ms": round(beside_harmless, 1),
        "hostile_p99_ms": round(beside_hostile, 1),
        "calm_calls": len(calm.late_s),
        "calm_refused": calm.refused,
        "hostile_calls": sum(ended.values()),
        "good_events": events.produced,
        "bad_records": bad.written,
        "rss_end_mb": round(watch.samples[-1].rss_mb, 1),
        "pushes": pushes,
    }, wrong


def _push_and_watch(engine: KillableEngine, watch: Watch, began_s: float, seconds: float, wrong: list[str]) -> int:
    """Looks at the engine each second and pushes models in turn, while others call it; returns how many it pushed."""
    version, told_s, pushing = 1, began_s, None
    while (now_s := time.monotonic()) < began_s + seconds:
        sample = watch.look()
        if now_s >= began_s + version * seconds / _PUSHES and (pushing is None or not pushing.is_alive()):
            version += 1
            pushing = threading.Thread(target=_push, args=(engine.address, version, wrong), daemon=True)
            pushing.start()
        if now_s >= told_s + _SEGMENT_S:
            told_s = now_s
            print(f"{now_s - began_s:,.0f} s: {sample.rss_mb:,.0f} MB, backlog {sample.backlog:,.0f}", flush=True)
        time.sleep(max(0.0, now_s + 1.0 - time.monotonic()))
    if pushing is not None:
        pushing.join()
    return version


def _push(address: str, version: int, wrong: list[str]) -> None:
    """Pushes a model, again and again while somebody else's push holds the place, as a trainer does."""
    until_s = time.monotonic() + TIMEOUT_S
    while True:
        refused: list[str] = []
        push_model(address, version, refused)
        if not refused:
            return
        if "ABORTED" not in refused[0] or time.monotonic() > until_s:
            wrong += refused
            return
        time.sleep(_PUSH_AGAIN_S)


def _handles_at_rest(watch: Watch, before: tuple[int, int]) -> tuple[int, int]:
    """Threads and open files, once they have come down to about what they were, or have had the time to."""
    until_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < until_s:
        if all(now - then <= _WITHIN for now, then in zip(watch.handles(), before, strict=True)):
            break
        time.sleep(1.0)
    return watch.handles()


def _lost(kafka: KafkaConfig, engine: KillableEngine) -> int:
    """Records that the log has and that no counter of the engine accounts for, once it has had the time to count."""
    until_s = time.monotonic() + _COUNT_S
    while (differing := _miscounted(kafka, engine)) and time.monotonic() < until_s:
        time.sleep(1.0)
    for topic, (written, known) in differing.items():
        print(f"{topic}: {written:,} records in the log, {known:,} known to the engine", file=sys.stderr)
    return sum(abs(written - known) for written, known in differing.values())


def _miscounted(kafka: KafkaConfig, engine: KillableEngine) -> dict[str, tuple[int, int]]:
    """Of topics where the two differ: the records in the log, and those that the engine has counted."""
    found = engine.metrics()
    counts: dict[str, tuple[int, int]] = {}
    with closing(KafkaConsumer(**connection_settings(kafka))) as consumer:
        for topic in (kafka.events_topic, kafka.items_topic):
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            written = sum(consumer.end_offsets(partitions).values())
            named = f'topic="{topic}"'
            known = round(sum(value for name, value in found.items() if _is_outcome(name) and named in name))
            if written != known:
                counts[topic] = written, known
    return counts


def _is_outcome(name: str) -> bool:
    return name.startswith("ousel_records_total{")


def _unwanted(figures: dict[str, Figure]) -> list[str]:
    steep, error = float(figures["slope_mb_per_min"]), float(figures["slope_error"])
    wanted = {
        "records are lost": figures["lost"] == 0,
        "memory grows": steep < max(0.5, error),
        "well-behaved calls are slowed down": float(figures["calm_p99_ratio"]) <= 2,
        "threads are left": abs(int(figures["threads_after"]) - int(figures["threads_before"])) <= _WITHIN,
        "descriptors are left": abs(int(figures["files_after"]) - int(figures["files_before"])) <= _WITHIN,
    }
    return [what for what, holds in wanted.items() if not holds]


def _report(figures: dict[str, Figure]) -> None:
    rows = [
        ("records lost, of good events and bad records", shown(figures, "lost", "good_events", "bad_records")),
        (
            "MB of least memory per minute in the second half, give or take",
            shown(figures, "slope_mb_per_min", "slope_error"),
        ),
        ("threads before and after", shown(figures, "threads_before", "threads_after")),
        ("open files before and after", shown(figures, "files_before", "files_after")),
        ("ms, p99 of calm calls beside harmless and hostile ones", shown(figures, "calm_p99_ms", "hostile_p99_ms")),
        ("ratio", shown(figures, "calm_p99_ratio")),
        ("calm calls, refused ones, calls of others", shown(figures, "calm_calls", "calm_refused", "hostile_calls")),
    ]
    report("soak_hostile", f"{figures['seconds']:g} s of hostile callers and input", rows, figures)
