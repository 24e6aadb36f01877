"""Whether lists are as good after a restart as before it, with the default settings and the trainer gone.

    python -m benchmarks.restart

A grocer's shop is played: 92,331 items and the newest 200,000 of 45 weeks of purchases go to a broker's log, an engine
folds them, and `ousel-trainer run` trains with nothing set until its first model serves. The trainer is ended, and the
next 6,000 purchases are folded by that model. Then 200 households are asked for lists, the engine is asked to end, an
engine starts again, and the same households are asked once more. A list hits where it has an item of the household's
next basket.

    hits_before, hits_after    shares of the households
    hit_ratio                  after over before: wanted between 0.99 and 1.01
    same_lists                 share of the households whose two lists are equal
    restart_s                  from the start of the second engine to its health SERVING
    same_model                 each list after that, the first included, is of the version that it was of before: wanted

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
from contextlib import ExitStack, closing
from pathlib import Path

import ousel

from benchmarks.engine_and_trainer import EngineAndTrainer
from benchmarks.recovery_engine import KillableEngine, environment
from benchmarks.report import Figure, report
from benchmarks.shop_log import write
from deploy.demo.data import Purchases, data_folder, events, read_items, read_purchases
from deploy.local.brokers import start_broker
from engine.config import Config, KafkaConfig, SnapshotConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics

K = 20
HOUSEHOLDS = 200
_WEEKS = 45  # of 53: what comes later is played once a model serves
_PAST, _PLAYED = 200_000, 6_000  # purchases
_FOLDED_S, _MODEL_S, _STOP_S, _START_S = 600.0, 3600.0, 120.0, 600.0
_ALLOWED = 0.01


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.restart", description=__doc__.split("\n")[0]).parse_args()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ousel-restart-")))
        broker = start_broker(folder / "broker")
        opened.callback(broker.stop)
        kafka = KafkaConfig(**broker.client_settings())
        ensure_topics(kafka)
        figures = _measured(Config(kafka=kafka, snapshot=SnapshotConfig(dir=folder / "snapshots")), folder)
        figures["broker"] = broker.name
    _report(figures)
    return 0 if abs(float(figures["hit_ratio"]) - 1) <= _ALLOWED and figures["same_model"] else 1


def _measured(config: Config, folder: Path) -> dict[str, Figure]:
    variables = environment(config)
    del variables["OUSEL_CANARY__MIN_SCORER_SHARE"]  # The trainer's model serves by what it is worth.
    past, live = read_purchases(data_folder(), _WEEKS)
    past, played, baskets = past[-_PAST:], live[:_PLAYED], next_baskets(live[_PLAYED:], HOUSEHOLDS)
    with closing(EventProducer(config.kafka)) as producer:
        write(producer.send_item(item) for item in read_items(data_folder()))
        write(producer.send_event(event) for event in events(past))
        with closing(EngineAndTrainer.start(config, folder, "first", variables)) as both:
            both.until("the past is folded", _FOLDED_S, lambda: both.folded() >= len(past))
            print(f"{len(past):,} purchases are folded; a model is trained", flush=True)
            both.until("a model serves", _MODEL_S, lambda: both.status().model_version > 0)
            both.stop_trainer()
            write(producer.send_event(event) for event in events(played))
            both.until("the live purchases are folded", _FOLDED_S, lambda: both.folded() >= len(past) + len(played))
            print(f"{len(played):,} more are folded; {len(baskets)} households are asked", flush=True)
            before = _lists(both.engine.address, list(baskets))
            both.engine.stop(_STOP_S)
    with closing(KillableEngine(config, folder / "second-engine.log", variables)) as engine:
        restart_s = engine.wait_until_serving(_START_S)
        after = _lists(engine.address, list(baskets))
    hits = [sum(not baskets[user].isdisjoint(items) for user, (_, items) in lists.items()) for lists in (before, after)]
    return {
        "households": len(baskets),
        "hits_before": round(hits[0] / len(baskets), 4),
        "hits_after": round(hits[1] / len(baskets), 4),
        "hit_ratio": round(hits[1] / max(1, hits[0]), 4),
        "same_lists": round(sum(before[user] == after[user] for user in baskets) / len(baskets), 4),
        "restart_s": round(restart_s, 1),
        "same_model": _versions(before) == _versions(after) and len({*_versions(after).values()} - {0}) == 1,
    }


def next_baskets(purchases: Purchases, households: int) -> dict[str, set[str]]:
    """The products in the first basket of each household, for so many households in the order in which they come."""
    first: dict[str, int] = {}
    items: dict[str, set[str]] = {}
    for household, basket, product in zip(
        purchases.household.tolist(), purchases.basket.tolist(), purchases.product.tolist(), strict=True
    ):
        user = str(household)
        if (user in first or len(first) < households) and first.setdefault(user, basket) == basket:
            items.setdefault(user, set()).add(str(product))
    return items


def _lists(address: str, users: list[str]) -> dict[str, tuple[int, list[str]]]:
    """Of each user, by name: the version of the model that made the list, and its items.

    Version 0 is no model, as for a household that has not been seen before.
    """
    lists = {}
    with ousel.Client(address) as client:
        for user in users:
            made = client.recommend(user, k=K)
            version = made.model_version if made.origin is ousel.Origin.MODEL else 0
            lists[user] = version, [item.item_id for item in made.items]
    return lists


def _versions(lists: dict[str, tuple[int, list[str]]]) -> dict[str, int]:
    """Of the lists of each user."""
    return {user: version for user, (version, _) in lists.items()}


def _report(figures: dict[str, Figure]) -> None:
    rows = [
        (f"hit rate@{K} before and after", f"{figures['hits_before']} and {figures['hits_after']}"),
        ("after over before", f"{figures['hit_ratio']}"),
        ("households whose two lists are equal", f"{figures['same_lists']}"),
        ("from the start of the second engine to SERVING", f"{figures['restart_s']} s"),
        ("by the same model", str(figures["same_model"])),
    ]
    title = f"A restart without a trainer, {figures['households']} households, broker: {figures['broker']}"
    report("restart", title, rows, figures)


if __name__ == "__main__":
    sys.exit(main())
