"""Whether anything is lost or folded twice when the engine is killed: it is, again and again, and compared each time.

    python -m benchmarks.recovery [--quick] [--trials N] [--broker-trials N] [--stock-producers] [--seed N]

A writer keeps writing: events, repeats, broken records, users to forget, catalog changes. The engine is killed with
SIGKILL at moments drawn by lot, in turns at work, while it writes a snapshot, and while it replays after the kill
before. Once it serves again, its digests are compared with those of a run that never stopped, in this process, over
the same log up to the same positions. With `--broker-trials` the broker is killed too, and started again. With
`--stock-producers`, confluent-kafka and kafka-python write beside the writer, in batches of all four codecs; with
Apache Kafka also its own producer in Java, and all three in transactions as well, of which half are aborted.

    trials, identical   comparisons, and those without any difference
    events_lost         the most that one comparison found: acknowledged events that are not in the log where the
                        broker said, or were acknowledged before the engine started and not reflected when it served,
                        and events that the log held up to the engine's positions beyond those that it had folded
    events_twice        the most that one comparison found: events folded beyond those that the log held
    replay_records_per_s  records that restarts found in the log and in no snapshot, over the time from the line in the
                        engine's log that says so, after which it polls first, to the line that says it is ready
    restart_s           from the start of the process to SERVING
    snapshots_used      restarts that began from a snapshot
    committed, aborted  events that the stock producers wrote and committed, and wrote and aborted

An event counts by the number that the writer gave it, each number once. With the environment variable `KAFKA_HOME` the
broker is the Apache Kafka there, else the embedded one. It ends with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from types import FrameType

import torch

from benchmarks.recovery_producers import StockWriters
from benchmarks.recovery_trials import Kill, Tally, Trials
from benchmarks.report import Figure, report
from deploy.local.brokers import start_broker
from engine.config import Config, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.topics import ensure_topics

PARTITIONS = 3
_QUICK_S, _QUICK_TRIALS = 50.0, 5
_EVENTS_PER_S = 500  # all on one small machine: broker, engine, writer, and the run that never stops


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="as many trials as end within 50 s, at least 5")
    parser.add_argument("--trials", type=int, default=100, help="in which the engine is killed (default: %(default)s)")
    parser.add_argument("--broker-trials", type=int, default=0, help="in which the broker is; needs Apache Kafka")
    parser.add_argument("--stock-producers", action="store_true", help="other people's producers write as well")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = parser.parse_args()
    if args.broker_trials and not os.environ.get("KAFKA_HOME"):
        parser.error("--broker-trials needs KAFKA_HOME: the embedded broker loses its last second when it is killed")
    if args.broker_trials and args.stock_producers:
        parser.error("--broker-trials and --stock-producers don't go together: these producers give up with the broker")
    begun_s = time.perf_counter()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ousel-recovery-")))
            broker = start_broker(folder / "broker")
            opened.callback(lambda: broker.stop())
            print(f"broker: {broker.name}", flush=True)
            config = _config(broker.client_settings(), folder)
            ensure_topics(config.kafka)
            stock = partial(StockWriters, config.kafka, args.seed, _kafka_home()) if args.stock_producers else None
            trials = opened.enter_context(
                Trials(config, PARTITIONS, folder, seed=args.seed, events_per_s=_EVENTS_PER_S, stock=stock)
            )

            def restart() -> None:
                nonlocal broker
                broker = start_broker(folder / "broker", broker.port)

            for kill in _kills(args.trials, args.seed):
                trials.engine_trial(kill)
                _tell(trials.tally)
                per_trial_s = (time.perf_counter() - begun_s) / trials.tally.trials
                left_s = _QUICK_S - (time.perf_counter() - begun_s)
                if args.quick and trials.tally.trials >= _QUICK_TRIALS and left_s < 1.5 * per_trial_s:
                    break
            for _ in range(args.broker_trials):
                trials.broker_trial(lambda: broker.kill(), restart)
                _tell(trials.tally)
            trials.finish()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    written = (trials.stock.committed, trials.stock.aborted) if trials.stock is not None else (0, 0)
    _report(trials.tally, args.broker_trials, broker.name, written)
    for line in trials.tally.differences:
        print(line, file=sys.stderr)
    return 1 if trials.tally.differences else 0


def _kafka_home() -> Path | None:
    home = os.environ.get("KAFKA_HOME")
    return Path(home) if home else None


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _config(kafka: dict[str, object], folder: Path) -> Config:
    """Small limits, so that users, items and event ids make room for others all the time; small pieces, for events to
    come between them."""
    return Config(
        kafka=KafkaConfig(**kafka, events_partitions=PARTITIONS),
        state=StateConfig(max_users=4500, max_items=395, history=16, neighbors=8, duplicates_window=8192),
        snapshot=SnapshotConfig(dir=folder / "snapshots", engine="recovery", interval_s=1.0, piece_bytes=16_384),
    )


def _kills(count: int, seed: int) -> Iterator[Kill]:
    """By lot, and all kinds equally often."""
    chance, kinds = Random(seed), list[Kill]()
    for _ in range(count):
        if not kinds:
            kinds = ["live", "snapshot", "replay"]
            chance.shuffle(kinds)
        yield kinds.pop()


def _tell(tally: Tally) -> None:
    after = f"serving after {tally.restart_s[-1]:.1f} s" if tally.restart_s else ""
    print(f"trial {tally.trials}: {tally.identical} identical so far, {after}", flush=True)


def _report(tally: Tally, broker_trials: int, broker: str, written: tuple[int, int]) -> None:
    records, seconds = sum(one.records for one in tally.replays), sum(one.seconds for one in tally.replays)
    figures: dict[str, Figure] = {
        "trials": tally.trials,
        "identical": tally.identical,
        "events_lost": tally.lost,
        "events_twice": tally.twice,
        "replay_records_per_s": round(records / seconds) if seconds else 0,
        "replayed_records": records,
        "restart_s_p50": round(median(tally.restart_s), 2),
        "restart_s_max": round(max(tally.restart_s), 2),
        "restarts": len(tally.restart_s),
        "snapshots_used": sum(one.from_snapshot for one in tally.replays),
        **{f"killed_while_{what}": tally.killed_while[what] for what in ("live", "snapshot", "replay", "start")},
        "broker_killed": broker_trials,
        "committed": written[0],
        "aborted": written[1],
        "broker": broker,
    }
    rows = [
        ("trials, identical to a run that never stopped", f"{tally.trials}, {tally.identical}"),
        ("events lost, folded twice", f"{tally.lost}, {tally.twice}"),
        ("replay", f"{figures['replay_records_per_s']:,} records/s over {records:,} records"),
        ("start to SERVING, median and most", f"{figures['restart_s_p50']} s, {figures['restart_s_max']} s"),
        ("restarts, from a snapshot", f"{figures['restarts']}, {figures['snapshots_used']}"),
        (
            "the engine killed at work, in a snapshot, in replay",
            ", ".join(str(tally.killed_while[what]) for what in ("live", "snapshot", "replay")),
        ),
        ("the broker killed", f"{broker_trials}"),
        ("events of stock producers committed, aborted", f"{written[0]:,}, {written[1]:,}"),
    ]
    report("recovery", f"Recovery, broker: {broker}", rows, figures)


if __name__ == "__main__":
    sys.exit(main())
