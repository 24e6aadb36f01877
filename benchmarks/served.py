"""Whether what is served is what is evaluated: a shop's past is trained on, its future is played, and lists are asked.

    python -m benchmarks.served [--events FILE [--items FILE]] [--quick]

The past of a file goes to a broker's log; `ousel-trainer run` trains on it with nothing set and pushes to an engine,
until it says that more training brings nothing. Then the future is played event by event, and `Recommend` is asked over
gRPC just before each question. The questions are those of `evaluate`: of a file with a column `split`, each event but
the first of each test session; of any other, each basket of the last tenth. The model that served last is evaluated on
the same questions, with a state that goes on and with one that stands still, beside peers that were tuned on the past
and see the future come, too.

    hr, mrr, ndcg            of what was served, at 20
    hr_ratio, mrr_ratio      over what is evaluated with a state that goes on: wanted between 0.99 and 1.01
    hr_frozen, mrr_frozen    what is evaluated with a state that stands still
    hr_over_best_peer, mrr_over_best_peer: wanted 1.03 or more
    first_s, trained_s       from the trainer's start to the first model, and until more training brings nothing

Without --events it is the year of purchases that the demo uses, 4,000 baskets. --quick takes 150 households of it, or
as many users of a file, and trains for two minutes; on the purchases the peers have the settings that the whole year
chose, which would tell nothing of another file.
"""

from __future__ import annotations

import argparse
import os
import re

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import ousel
from numpy.typing import NDArray
from ousel.v1 import catalog_pb2, event_pb2

from benchmarks.recovery_engine import EngineError, KillableEngine, environment
from benchmarks.report import Figure, report
from benchmarks.shop_log import write
from deploy.demo.data import data_folder
from deploy.demo.files import write_files
from deploy.local.brokers import start_broker
from deploy.local.processes import Child
from engine.config import Config, KafkaConfig, SnapshotConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics
from trainer.config import TrainerConfig
from trainer.data.files import Items, read_events, read_items
from trainer.data.log import Events, Ints, Lister, Scorer, Split
from trainer.evaluation import splits
from trainer.evaluation.content import described
from trainer.evaluation.metrics import Judge
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.peers.tuning import Settings, as_chosen, tuned
from trainer.evaluation.run import judge
from trainer.model_file import load_model
from trainer.push import versions

K = 20
_MOST = 4000  # baskets asked about
_QUICK_USERS = 150
_QUICK_MINUTES = 2.0  # of training
# Of the peers, as the whole year's validation chose them.
_CHOSEN: dict[str, Settings] = {
    "popularity": {},
    "frequency": {"half_life": 5_184_000.0},
    "item_knn": {"shrinkage": 50.0, "decay": 0.8},
    "stan": {"lambda_spw": 8.0, "lambda_snh": 4_320_000.0, "lambda_inh": 8.0},
    "session_knn": {"k": 1500, "weighting": "quadratic", "decay": "log"},
}
_TRAINED_S = 4 * 3600.0
_LOOK_S = 0.5
_DONE = "more training on this log brings nothing"
_FIRST = re.compile(r": version \d+ serves$", re.MULTILINE)  # The trainer looks every few seconds.


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.served", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, help="a file of events, as `ousel-trainer evaluate` reads it")
    parser.add_argument("--items", type=Path, help="the same of the catalog")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_USERS} users of the file")
    args = parser.parse_args()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ousel-served-")))
        bundled = args.events is None
        if bundled:
            write_files(data_folder(), folder)
            args.events, args.items = folder / "events.parquet", folder / "items.parquet"
        named = read_items(args.items) if args.items else None
        events = read_events(args.events, named)
        if args.quick:
            events = _of_users(events, _QUICK_USERS)
        split = splits.sessions(events) if events.test is not None else splits.prequential(events, most=_MOST)
        counts = f"{len(split.train):,} events to train on, {len(split.questions):,} questions"
        print(f"{counts}, split {split.digest[:16]}", flush=True)
        broker = start_broker(folder / "broker")
        opened.callback(broker.stop)
        kafka = KafkaConfig(**broker.client_settings())
        config = Config(kafka=kafka, snapshot=SnapshotConfig(dir=folder / "snapshots", interval_s=86_400))
        ensure_topics(kafka)
        more = {"OUSEL_TRAINER__MAX_MINUTES": str(_QUICK_MINUTES)} if args.quick else {}
        served, times = _served(config, folder, events, named, split, more)
        newest = max((folder / "models").glob("*.safetensors"), key=lambda path: int(path.stem), default=None)
        if newest is None:
            print("the trainer pushed no model: counting was better on the newest events, so counting served")
            return 1
        return _compared(newest, events, named, split, served, times, _CHOSEN if args.quick and bundled else None)


def _of_users(events: Events, count: int) -> Events:
    """The events of the first users by number."""
    kept = events.user < count
    columns = {name: getattr(events, name)[kept] for name in ("user", "session", "item", "time", "kind", "value")}
    return replace(events, **columns, test=None if events.test is None else events.test[kept])


def _served(
    config: Config, folder: Path, events: Events, named: Items | None, split: Split, more: dict[str, str]
) -> tuple[NDArray[np.int32], dict[str, Figure]]:
    """The lists that an engine gave, [Q, K] in the order of the questions.

    Args:
        more: variables of the trainer.
    """
    by_session = split.protocol == splits.SESSIONS
    with closing(EventProducer(config.kafka)) as producer:
        if named is not None:
            write(producer.send_item(record) for record in _records(named))
        write(producer.send_event(event) for event in _messages(events, split.train, by_session))
        variables = environment(config) | {
            "OUSEL_TRAINER__MODELS_DIR": str(folder / "models"), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        del variables["OUSEL_CANARY__MIN_SCORER_SHARE"]
        with closing(KillableEngine(config, folder / "engine.log", variables)) as engine:
            engine.wait_until_serving()
            times = _train(engine, folder, variables | more)
            return _play(engine.address, producer, events, split, by_session), times


def _train(engine: KillableEngine, folder: Path, variables: dict[str, str]) -> dict[str, Figure]:
    """Lets the trainer train until more brings nothing; returns how long that took."""
    began_s, first_s = time.monotonic(), 0.0
    variables = variables | {"OUSEL_TRAINER__ENGINE": engine.address}
    trainer = Child("trainer", [sys.executable, "-m", "trainer", "run"], folder / "trainer.log", variables)
    try:
        while _DONE not in (said := trainer.log_path.read_text(errors="replace")):
            if not first_s and _FIRST.search(said):
                first_s = time.monotonic() - began_s
                print(f"a first model after {first_s:.0f} s", flush=True)
            if time.monotonic() - began_s > _TRAINED_S or trainer.wait(0) is not None:
                raise EngineError(f"waited for the end of the training:\n{trainer.log_tail(20)}")
            time.sleep(_LOOK_S)
        while (known := versions(engine.address)) is None or known.announced not in (0, known.serving):
            if time.monotonic() - began_s > _TRAINED_S:
                raise EngineError("waited for the last model to serve")
            time.sleep(_LOOK_S)
    finally:
        trainer.stop()
    told = [line for line in said.splitlines() if " trained " in line or " trainer.rules: " in line]
    print("\n".join(told), flush=True)
    return {"first_s": round(first_s, 1), "trained_s": round(time.monotonic() - began_s, 1)}


def _play(address: str, producer: EventProducer, events: Events, split: Split, by_session: bool) -> NDArray[np.int32]:
    """Sends the future, and asks just before each question."""
    number = {item_id: at for at, item_id in enumerate(events.items)}
    lists = np.full((len(split.questions), K), -1, np.int32)
    new = np.ones(len(events), np.bool_)
    new[split.train] = False
    if splits.goes_on(split):
        new[: int(split.train[-1]) + 1] = False
    late = np.flatnonzero(new)
    first = split.questions.order[split.questions.cut]
    last: ousel.Position | None = None
    with ousel.Client(address, timeout_s=60) as client:
        for at, position in enumerate(first.tolist()):
            seen = int(np.searchsorted(late, position))
            for message in _messages(events, late[:seen], by_session):
                lay = producer.send_event(message).result(60)
                last = ousel.Position(lay.topic, lay.partition, lay.offset)
            late = late[seen:]
            who = events.sessions[events.session[position]] if by_session else events.users[events.user[position]]
            asked = {"session_id": who} if by_session else {"user_id": who}
            made = client.recommend(**asked, k=K, after=last)
            rows = [number[item.item_id] for item in made.items]
            lists[at, : len(rows)] = rows
            if at % 1000 == 0:
                print(f"{at:,} of {len(first):,} questions", flush=True)
    return lists


def _compared(
    model: Path,
    events: Events,
    named: Items | None,
    split: Split,
    lists: NDArray[np.int32],
    times: dict[str, Figure],
    chosen: dict[str, Settings] | None,
) -> int:
    """Prints what was served beside what the model that served is worth; `chosen`: None where peers are to be tuned."""
    settings = TrainerConfig()
    scorer = OuselScorer(
        settings, by_session=split.protocol == splits.SESSIONS, weights=load_model(model).weights,
        catalog=described(events, named, settings.state) if named else None,
    )  # fmt: skip
    served = Judge(events, split.train, [K])
    served.add(split.questions, lists)
    found = {"served": _told("served", _figures(served))}
    found["evaluated"] = _told("evaluated", _judged(scorer, events, split, live=True))
    found["frozen"] = _told("frozen", _judged(_Still(scorer), events, split))
    if chosen is None:
        protocol = splits.sessions if events.test is not None else splits.prequential
        peers, chosen = tuned(events, protocol(events, validation=True), K)
    else:
        peers = as_chosen(events, chosen)
    found |= {peer.name: _told(peer.name, _judged(peer, events, split, live=True)) for peer in peers}
    figures: dict[str, Figure] = {**found["served"], "questions": len(split.questions), **times, "peers": str(chosen)}
    for name in ("hr", "mrr", "ndcg"):
        figures[f"{name}_ratio"] = round(found["served"][name] / max(1e-9, found["evaluated"][name]), 4)
        figures[f"{name}_frozen"] = found["frozen"][name]
        best = max(found[peer.name][name] for peer in peers)
        figures[f"{name}_over_best_peer"] = round(found["served"][name] / max(1e-9, best), 4)
    rows = [(name, _shown(one)) for name, one in found.items()]
    rows += [(name, str(value)) for name, value in figures.items() if name.endswith(("_ratio", "_peer", "_s"))]
    report("served", "What is served, beside what is evaluated", rows, figures)
    return 0


def _told(name: str, figures: dict[str, float]) -> dict[str, float]:
    """Figures, printed at once: those of the peers take half an hour more on a long log."""
    print(f"{name}: {_shown(figures)}", flush=True)
    return figures


def _shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{what} {value:.4f}" for what, value in figures.items())


class _Still:
    """The model with a state that stands still after the training, though histories go on."""

    name = "frozen"
    live = False

    def __init__(self, scorer: OuselScorer) -> None:
        self._scorer = scorer
        self.fit = scorer.fit
        self.lists = scorer.lists

    def observe(self, positions: Ints) -> None:
        pass


def _judged(scorer: Scorer | Lister, events: Events, split: Split, *, live: bool = False) -> dict[str, float]:
    return _figures(judge(scorer, events, split, [K], live=live).judge)


def _figures(judge: Judge) -> dict[str, float]:
    values = judge.values()
    return {name: round(float(values[f"{name}@{K}"].mean(dtype=np.float64)), 4) for name in ("hr", "mrr", "ndcg")}


def _records(named: Items) -> Iterator[catalog_pb2.Item]:
    for item_id, title in named.title.items():
        yield catalog_pb2.Item(item_id=item_id, title=title, categories=named.categories[item_id])


def _messages(events: Events, positions: Ints, by_session: bool) -> Iterator[event_pb2.Event]:
    """Events as an app sends them."""
    for at in positions.tolist():
        message = event_pb2.Event(item_id=events.items[events.item[at]], kind=events.kinds[events.kind[at]])
        if by_session or events.names_sessions:
            message.session_id = events.sessions[events.session[at]]
        if not by_session:
            message.user_id = events.users[events.user[at]]
        message.time.FromMilliseconds(int(events.time[at] * 1000))
        yield message


if __name__ == "__main__":
    sys.exit(main())
