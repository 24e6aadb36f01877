"""Whether a shop of a million items gets a model that serves, with the default settings, and what that takes.

    python -m benchmarks.shop [--items 1000000] [--events 3000000] [--users 300000] [--partitions 4]

The log holds the catalog and the events of users who each like the items of one group, some of them most, so that there
is something to learn. An engine and a trainer start on it with nothing set but `state.max_items` and the memory's bound
on users, where the shop has more than the defaults hold. Once a model serves, the trainer is ended, the engine is asked
to end, and an engine starts again.

    fold_per_s          events and catalog records over the seconds from the engine's start to the last of them
    model_s             from the trainer's start to a model that the engine has taken
    push_to_serving_s   from there to lists by that model
    index_items         in the index of that model: wanted equal to the items
    engine_peak_mb, trainer_peak_mb   the most memory that each ever had
    restart_s           from the start of the second engine to its health SERVING, by the same model: wanted

With the environment variable `KAFKA_HOME` the broker is the Apache Kafka there, else the embedded one. It ends with 1
where a figure is not as wanted.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

import ousel
from kafka.errors import for_code
from ousel.v1 import event_pb2

from benchmarks.engine_and_trainer import EngineAndTrainer
from benchmarks.large_records import most_mb
from benchmarks.recovery_engine import KillableEngine, environment
from benchmarks.report import Figure, report
from benchmarks.shop_log import catalog_record, item_id, user_id, write
from deploy.local.brokers import Broker, start_broker
from deploy.local.raw_batches import raw_batch, send_raw
from engine.config import Config, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics

_BATCH = 10_000  # events
_GROUP_ITEMS = 100
_FIRST_MS, _APART_MS = 1_700_000_000_000, 100
_FOLDED_S, _MODEL_S, _STOP_S = 3600.0, 7200.0, 600.0
_TAKEN = r"pushed version \d+: stored and announced"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shop", description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--partitions", type=int, default=4)
    args = parser.parse_args()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ousel-shop-")))
        broker: Broker = start_broker(folder / "broker")
        opened.callback(broker.stop)
        kafka = KafkaConfig(**broker.client_settings(), events_partitions=args.partitions)
        config = Config(
            kafka=kafka,
            state=_limits(args.items, args.users),
            snapshot=SnapshotConfig(dir=folder / "snapshots"),
        )
        ensure_topics(kafka)
        print(f"broker: {broker.name}; writing {args.items:,} items and {args.events:,} events", flush=True)
        _write(kafka, args.items, args.events, args.users)
        figures = _play(config, folder, args.items, args.events)
        figures |= {"users": args.users, "broker": broker.name}
    _report(figures)
    return 0 if figures["index_items"] == args.items and figures["same_model"] else 1


def _limits(items: int, users: int) -> StateConfig:
    default = StateConfig()
    return StateConfig(max_items=max(items, default.max_items), max_users=max(users, default.max_users))


def _write(kafka: KafkaConfig, items: int, events: int, users: int) -> None:
    with closing(EventProducer(kafka)) as producer:
        write(producer.send_item(catalog_record(item)) for item in range(items))
    chance = Random(1)
    for first in range(0, events, _BATCH):
        partition = first // _BATCH % kafka.events_partitions
        some = _events(range(first, min(first + _BATCH, events)), (partition, kafka.events_partitions), users, items,
                       chance)  # fmt: skip
        code = send_raw(kafka.bootstrap, kafka.events_topic, partition, raw_batch(some, "none"))
        if code:
            raise RuntimeError(f"the broker refuses a batch of events: {for_code(code).__name__}")


def _events(numbers: range, place: tuple[int, int], users: int, items: int, chance: Random) -> Iterator[bytes]:
    """Events of one partition, `place[0]` of `place[1]`, by the users whose numbers leave that rest."""
    partition, partitions = place
    groups = -(-items // _GROUP_ITEMS)
    for number in numbers:
        user = chance.randrange(users // partitions) * partitions + partition
        item = (user % groups * _GROUP_ITEMS + int(_GROUP_ITEMS * chance.random() ** 2)) % items
        event = event_pb2.Event(event_id=f"e{number}", user_id=user_id(user), item_id=item_id(item), kind="view")
        event.time.FromMilliseconds(_FIRST_MS + _APART_MS * number)
        yield event.SerializeToString()


def _play(config: Config, folder: Path, items: int, events: int) -> dict[str, Figure]:
    variables = environment(config)
    del variables["OUSEL_CANARY__MIN_SCORER_SHARE"]  # The trainer's model serves by what it is worth.
    began_s = time.monotonic()
    with closing(EngineAndTrainer.start(config, folder, "first", variables)) as both:
        both.until("the log is folded", _FOLDED_S, lambda: _all_folded(both.status(), items, events))
        folded_s = time.monotonic() - began_s
        print(f"folded after {folded_s:.0f} s", flush=True)
        both.until("a model is taken", _MODEL_S, lambda: both.trainer_says(_TAKEN))
        model_s = time.monotonic() - began_s
        print(f"a model was taken after {model_s:.0f} s", flush=True)
        both.until("it serves", _MODEL_S, lambda: both.status().model_version > 0)
        serving_s = time.monotonic() - began_s - model_s
        print(f"it serves {serving_s:.0f} s later", flush=True)
        status = both.status()
        peaks = most_mb(both.engine.pid), most_mb(both.trainer.pid)
        both.stop_trainer()
        both.engine.stop(_STOP_S)
    with closing(KillableEngine(config, folder / "second-engine.log", variables)) as engine:
        restart_s = engine.wait_until_serving(_FOLDED_S)
        with ousel.Client(engine.address, timeout_s=60) as client:
            version = client.status().model_version
    return {
        "items": items,
        "events": events,
        "fold_per_s": round((items + events) / folded_s),
        "model_s": round(model_s, 1),
        "push_to_serving_s": round(serving_s, 1),
        "index_items": status.index_items,
        "engine_peak_mb": round(peaks[0]),
        "trainer_peak_mb": round(peaks[1]),
        "restart_s": round(restart_s, 1),
        "same_model": version == status.model_version,
    }


def _all_folded(status: ousel.Status, items: int, events: int) -> bool:
    return status.events_folded >= events and status.items_folded >= items


def _report(figures: dict[str, Figure]) -> None:
    shop = f"{figures['items']:,} items, {figures['users']:,} users, {figures['events']:,} events"
    rows = [
        ("events and catalog records folded each second, from the start", f"{figures['fold_per_s']:,}"),
        ("from the trainer's start to a model that is taken", f"{figures['model_s']} s"),
        ("from there to lists by it", f"{figures['push_to_serving_s']} s"),
        ("items in its index", f"{figures['index_items']:,}"),
        ("most memory of the engine; the trainer", f"{figures['engine_peak_mb']} MB; {figures['trainer_peak_mb']} MB"),
        ("from a start without a trainer to SERVING", f"{figures['restart_s']} s"),
        ("by the same model", str(figures["same_model"])),
    ]
    report("shop", f"A shop of {shop}, broker: {figures['broker']}", rows, figures)


if __name__ == "__main__":
    sys.exit(main())
