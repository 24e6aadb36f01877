"""Measures lists before the first model: how often the next item is among 20 by co-visitation, and by popularity.

    python -m benchmarks.without_model [--quick] [--events FILE]

A log is folded in its order, as an engine folds it, with every setting at its default and without a model. Before some
of the events of known users and sessions, drawn evenly from the last 80%, the list is made that the engine would serve,
and that of popularity. Both are asked for the item that comes next. Without a file the log is the demo's year of
purchases.

    hit_covisitation, hit_popularity    shares of the questions
    ratio                               of the two
    origin_covisitation                 share of the lists that co-visitation could say something about
    list_ms                             time per list of co-visitation, alone; list_popularity_ms of popularity
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Figure, report
from deploy.demo.data import DataError, data_folder, read_purchases
from engine.config import Config
from engine.events.batch import Decoded, EventBatch
from engine.events.times import TimeRule
from engine.ranking.asked import Asked
from engine.ranking.moment import Now
from engine.ranking.query import Origin, Query
from engine.ranking.scorers import SCORERS, WITHOUT_MODEL
from engine.state.state import State
from trainer.data.files import FileError, read_rows

K = 20
QUESTIONS = 5000
_AT_ONCE = 32  # events folded in one go; what others did within them is not seen yet
_ASKED_FROM = 0.2  # of the log: the beginning has little to go by
_QUICK_EVENTS = 200_000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it; returns the exit code: 1 where the data can't be read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.without_model", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, help="a file of events, as `ousel-trainer evaluate` reads it")
    parser.add_argument("--quick", action="store_true", help=f"the last {_QUICK_EVENTS:,} events only")
    args = parser.parse_args(argv)
    config = Config()
    try:
        log = _of_file(args.events, config) if args.events else _of_purchases()
    except (DataError, FileError) as error:
        print(f"without_model: {error}", file=sys.stderr)
        return 1
    figures = measured(log.select(slice(max(0, len(log) - _QUICK_EVENTS), len(log))) if args.quick else log, config)
    rows = [
        ("questions of known users", f"{figures['questions']:,}"),
        (f"hit rate@{K}, co-visitation", f"{figures['hit_covisitation']:.4f}"),
        (f"hit rate@{K}, popularity", f"{figures['hit_popularity']:.4f}"),
        ("ratio", f"{figures['ratio']:.2f}"),
        ("lists that co-visitation has a say in", f"{figures['origin_covisitation']:.3f}"),
        ("time per list, co-visitation and popularity", f"{figures['list_ms']} and {figures['list_popularity_ms']} ms"),
    ]
    report("without_model", "Lists before the first model", rows, figures)
    return 0


def measured(log: EventBatch, config: Config) -> dict[str, Figure]:
    """Folds the log and asks on the way."""
    state = State(config.state, config.events)
    first = int(len(log) * _ASKED_FROM)
    asked = np.random.default_rng(0).random(len(log)) < QUESTIONS / max(1, len(log) - first)
    asked[:first] = False
    hits, took_s = dict.fromkeys((WITHOUT_MODEL, "popularity"), 0), dict.fromkeys((WITHOUT_MODEL, "popularity"), 0.0)
    questions = told = 0
    for start in range(0, len(log), _AT_ONCE):
        part = log.select(slice(start, start + _AT_ONCE))
        for at in np.flatnonzero(asked[start : start + _AT_ONCE]).tolist():
            query = Query(part.user_id[at], part.session_id[at], K)
            if state.find_users([query.subject])[0] < 0:
                continue
            questions += 1
            for name in hits:
                began_s = time.perf_counter()
                moment = Now(state, int(part.time_ms[at]))
                (made,) = SCORERS[name](Asked.of([query], state, config.ranking), moment, config.ranking)
                took_s[name] += time.perf_counter() - began_s
                hits[name] += state.items.get(part.item_id[at]) in made.page.row.tolist()
                told += name == WITHOUT_MODEL and made.origin == Origin.COVISITATION
        state.fold(Decoded(part, (), (), {(config.kafka.events_topic, 0): int(part.offset[-1]) + 1}))
    share = {name: count / max(1, questions) for name, count in hits.items()}
    return {
        "events": len(log),
        "questions": questions,
        "hit_covisitation": round(share[WITHOUT_MODEL], 4),
        "hit_popularity": round(share["popularity"], 4),
        "ratio": round(share[WITHOUT_MODEL] / max(1e-9, share["popularity"]), 3),
        "origin_covisitation": round(told / max(1, questions), 4),
        "list_ms": round(1000 * took_s[WITHOUT_MODEL] / max(1, questions), 3),
        "list_popularity_ms": round(1000 * took_s["popularity"] / max(1, questions), 3),
    }


def _of_purchases() -> EventBatch:
    parts = read_purchases(data_folder(), weeks=52)
    columns = ([getattr(part, name) for part in parts] for name in ("household", "basket", "product", "time_ms"))
    user, session, item, time_ms = (np.concatenate(column) for column in columns)
    kind = [*Config().events.kinds].index("purchase")
    return _batch([*_texts(user)], [*_texts(session)], [*_texts(item)], time_ms, np.full(len(item), kind, np.int8))


def _texts(numbers: NDArray[np.integer]) -> Iterator[str]:
    return map(str, numbers.tolist())


def _of_file(path: Path, config: Config) -> EventBatch:
    rows = read_rows(path, TimeRule.of(config.events), split=False)
    number = {name: at for at, name in enumerate(config.events.kinds)}
    kind = np.array([number.get(name, 0) for name in rows.kind.to_pylist()], np.int8)
    # An order that is no time counts as minutes from a day that is plausible.
    time_ms = np.round(rows.time * 1000 if rows.timed else 10**12 + rows.time * 60_000).astype(np.int64)
    return _batch(rows.user.to_pylist(), rows.session.to_pylist(), rows.item.to_pylist(), time_ms, kind)


def _batch(
    user: list[str], session: list[str], item: list[str], time_ms: NDArray[np.int64], kind: NDArray[np.int8]
) -> EventBatch:
    count = len(item)
    nothing, no = [""] * count, np.zeros(count, np.bool_)
    return EventBatch(
        nothing, user, session, item, nothing, kind, time_ms, np.ones(count, np.float32),
        np.zeros(count, np.int32), np.arange(count), time_ms, no, no,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
