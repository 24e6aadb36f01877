"""How fast the index follows moving vectors, and what its searches find and cost meanwhile.

    python -m benchmarks.index [--quick] [--model FILE]

The movement is the engine's own. `index_moves` folds the grocer's catalog (92,331 items) and purchases into a real
`State`, embeds all items with a real model, and replays the purchases that follow, 64 a step. For each call of
`LiveIndex.update` that the engine would make it notes the rows and what was added to the vector of each, and the
session vectors of some of the buyers, which are the queries here. The model is one of the default shape that nobody
has trained, unless `--model` names a weights file of `ousel-trainer train`.

The index has 100,000 rows: the items' vectors, and copies of some. Among them are many equal ones, of items without a
history, on which graphs are built more cheaply (they share a node): each repeat is moved by a distance drawn from the
recorded ones, so that no two are equal. The recorded updates then run over them in their order, again and again. In
the first pass they move the rows that they moved in the replay; in each later pass others, by a permutation of its
own, for in a longer log other items have their turn.

    inplace_per_s       rows per second that hnswlib updates in place (`add_items` with labels that exist, one thread):
                        the same updates, on a copy of the graph that LiveIndex starts with
    refreshed_per_s     rows per second that LiveIndex took, by the clock, rebuilds and searches included: updates come
                        at 12 times inplace_per_s, or as fast as they can be taken if that is less. Each is followed by
                        a search while there is time, and every fifth if there is none
    ratio               refreshed_per_s over inplace_per_s
    busy_share          of that time, what `update` and `maintain` took
    recall_at_100_min   the least of all probes, each 16 queries (as in the test of the law) against an exact search at
                        its moment: before the updates, while they run, during rebuilds and after swaps;
                        recall_at_100_min_query is the least of a single query
    search_p99_ratio    p99 of one search for 100 while all that goes on, over p99 before it, on a new graph
    search_cpu_p99_ratio  the same by the processor time of the searching thread, which no other process adds to
    unreachable         rows that a search for their own current vector, at the end, does not have among its first 10:
                        of all, or with --quick of `unreachable_of` drawn evenly

Before the clock starts the delta is filled to just below what starts a rebuild, so that one is soon due.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hnswlib
import numpy as np
import torch

from benchmarks.index_moves import Recording, Rows, Vectors, record
from benchmarks.report import report
from engine import collector
from engine.config import IndexConfig
from engine.index.live import MIN_DELTA, LiveIndex
from engine.model.weights import decode_weights

ROWS, K = 100_000, 100
PACE = 12  # times what hnswlib updates in place
SEARCH = 5  # updates between two searches at most, however late it is
PROBE = 200  # updates between two probes
PROBE_QUERIES = 16
SELF_K = 10
_SEED = 1


@dataclass(frozen=True)
class Effort:
    """How much of everything."""

    history: int  # purchases
    steps: int
    inplace_s: float
    searches: int  # before the updates
    rebuilds: int
    after: int  # updates after the last swap, and at least
    self_queries: int
    until_s: float  # from the start: no further updates then, whatever was rebuilt


QUICK = Effort(50_000, 150, 1.5, 1500, 1, 300, 3_000, 41.0)
FULL = Effort(600_000, 1500, 10.0, 5000, 4, 2000, ROWS, float("inf"))


@dataclass
class Driven:
    """What a run of updates came to; times in seconds, those of single searches in milliseconds."""

    refreshed: int = 0
    took_s: float = 0.0
    busy_s: float = 0.0
    rebuilds: int = 0
    delta_max: int = 0
    recalls: list[Vectors] = field(default_factory=list)  # of each probe, by query
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


class Catalog:
    """The current vectors [N, d] beside the index, and the updates that move them."""

    def __init__(self, recording: Recording, rows: int) -> None:
        self._recording = recording
        self._draw = np.random.default_rng(_SEED)
        self.vectors = _distinct(recording, rows, self._draw)
        self._updates = self._endless()

    def next(self) -> tuple[Rows, Vectors]:
        """Rows of the next update, and the vectors that they have from now on."""
        rows, step = next(self._updates)
        moved = unit(self.vectors[rows] + step)
        self.vectors[rows] = moved
        return rows, moved

    def _endless(self) -> Iterator[tuple[Rows, Vectors]]:
        place = np.arange(len(self.vectors))
        while True:
            for update in self._recording.updates:
                if len(update.rows):
                    yield place[update.rows], update.step
            place = self._draw.permutation(len(self.vectors))


def unit(vectors: Vectors) -> Vectors:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _distinct(recording: Recording, rows: int, draw: np.random.Generator) -> Vectors:
    """[rows, d] the vectors of the start and copies of them, each repeat moved by one of the recorded distances."""
    items = len(recording.start)
    vectors = recording.start[np.concatenate([np.arange(items), draw.integers(0, items, max(0, rows - items))])[:rows]]
    _, first = np.unique(vectors, axis=0, return_index=True)
    repeats = np.setdiff1d(np.arange(rows), first)
    distances = recording.distances()
    far = draw.choice(distances[distances > 0], (len(repeats), 1))
    vectors[repeats] = unit(
        vectors[repeats] + far * unit(draw.normal(size=(len(repeats), vectors.shape[1])).astype(np.float32))
    )
    return vectors


def search(index: LiveIndex, query: Vectors, driven: Driven) -> None:
    """Times one search."""
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    index.search(query, K)
    driven.cpu_ms.append(1000 * (time.thread_time() - cpu_s))
    driven.wall_ms.append(1000 * (time.perf_counter() - wall_s))


def some(queries: Vectors, at: int) -> Vectors:
    """[PROBE_QUERIES, d] of them, others each time."""
    return queries.take(range(at, at + PROBE_QUERIES), axis=0, mode="wrap")


def probe(index: LiveIndex, queries: Vectors, vectors: Vectors) -> Vectors:
    """[Q] share of the K best rows of each query that are found: by score, for among equals any will do."""
    exact = queries @ vectors.T
    kth = np.partition(exact, len(vectors) - K, axis=1)[:, len(vectors) - K, None]
    return (index.search(queries, K).score >= kth - 1e-6).mean(axis=1, dtype=np.float32)


def inplace_per_s(graph: hnswlib.Index, catalog: Catalog, seconds: float) -> float:
    """Rows per second that hnswlib itself takes."""
    refreshed, took_s = 0, 0.0
    while took_s < seconds:
        rows, vectors = catalog.next()
        start_s = time.perf_counter()
        graph.add_items(vectors, rows, num_threads=1)
        took_s += time.perf_counter() - start_s
        refreshed += len(rows)
    return refreshed / took_s


def idle(index: LiveIndex, catalog: Catalog, queries: Vectors, searches: int) -> Driven:
    """Searches of an index that nothing moves."""
    still = Driven()
    for at in range(searches):
        search(index, queries[at % len(queries)][None], still)
        if at % PROBE == 0:
            still.recalls.append(probe(index, some(queries, at), catalog.vectors))
    return still


def drive(index: LiveIndex, catalog: Catalog, queries: Vectors, per_s: float, effort: Effort, until_s: float) -> Driven:
    """Updates at `per_s` rows a second, with searches between them, through the rebuilds that `effort` asks for."""
    driven, left = Driven(), effort.after
    start_s = time.perf_counter()
    at = 0
    while left and (at < effort.after or time.perf_counter() < until_s):
        rows, vectors = catalog.next()
        begun_s = time.perf_counter()
        index.update(rows, vectors)
        swapped = index.maintain()
        driven.busy_s += time.perf_counter() - begun_s
        driven.refreshed += len(rows)
        driven.delta_max = max(driven.delta_max, index.delta_size)
        due_s = start_s + driven.refreshed / per_s
        if swapped or at % SEARCH == 0 or time.perf_counter() < due_s:
            search(index, queries[at % len(queries)][None], driven)
        if swapped or at % PROBE == 0:
            driven.recalls.append(probe(index, some(queries, at), catalog.vectors))
        driven.rebuilds += swapped
        left -= driven.rebuilds >= effort.rebuilds
        at += 1
        time.sleep(max(0.0, due_s - time.perf_counter()))
    driven.took_s = time.perf_counter() - start_s
    return driven


def fill_delta(index: LiveIndex, catalog: Catalog, config: IndexConfig) -> None:
    """Updates until a rebuild is nearly due."""
    while index.delta_size < 0.95 * max(MIN_DELTA, config.max_delta * ROWS):
        index.update(*catalog.next())


def unreachable(index: LiveIndex, catalog: Catalog, rows: Rows) -> int:
    """How many of `rows` are not among the first that a search for their own vector finds."""
    missing = 0
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        found = index.search(catalog.vectors[part], SELF_K).row
        missing += int(np.count_nonzero(~(found == part[:, None]).any(axis=1)))
    return missing


def main() -> None:
    begun_s = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within 50 s: fewer updates, one rebuild")
    parser.add_argument("--model", type=Path, help="weights file of ousel-trainer train; none: an untrained model")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    torch.set_num_threads(1)
    collector.set_aside()  # as in the engine
    print("recording: the engine's own updates while purchases are replayed", flush=True)
    weights = decode_weights(options.model.read_bytes()) if options.model else None
    recording = record(effort.history, effort.steps, weights)
    catalog = Catalog(recording, ROWS)
    print(f"building: a graph of {ROWS:,} rows", flush=True)
    config = IndexConfig()
    both_cores = config.model_copy(update={"rebuild_threads": 2})  # of the first build alone, which is not measured
    index = LiveIndex.build(np.arange(ROWS), catalog.vectors, both_cores, queries=recording.queries[-64:])
    index._config = config
    still = idle(index, catalog, recording.queries, effort.searches)
    print("updating: hnswlib in place, then LiveIndex", flush=True)
    peer = pickle.loads(pickle.dumps(index._graph._hnsw))
    inplace = inplace_per_s(peer, Catalog(recording, ROWS), effort.inplace_s)
    del peer
    fill_delta(index, catalog, config)
    until_s = begun_s + effort.until_s
    driven = drive(index, catalog, recording.queries, PACE * inplace, effort, until_s)
    index.close()
    rows = np.random.default_rng(_SEED).choice(ROWS, effort.self_queries, replace=False)
    lost = unreachable(index, catalog, rows)
    show(recording, config, index, inplace, still, driven, lost, len(rows))


def show(
    recording: Recording,
    config: IndexConfig,
    index: LiveIndex,
    inplace: float,
    still: Driven,
    driven: Driven,
    lost: int,
    asked: int,
) -> None:
    distances = recording.distances()
    idle_ms, busy_ms = (float(np.percentile(of.wall_ms, 99)) for of in (still, driven))
    idle_cpu_ms, busy_cpu_ms = (float(np.percentile(of.cpu_ms, 99)) for of in (still, driven))
    recalls = np.stack(still.recalls + driven.recalls)  # [probes, PROBE_QUERIES]
    per_s = driven.refreshed / driven.took_s
    figures: dict[str, float | int | str] = {
        "refreshed_per_s": round(per_s),
        "inplace_per_s": round(inplace),
        "ratio": round(per_s / inplace, 2),
        "busy_share": round(driven.busy_s / driven.took_s, 3),
        "recall_at_100_min": round(float(recalls.mean(axis=1).min()), 4),
        "recall_at_100_min_query": round(float(recalls.min()), 4),
        "recall_at_100_mean": round(float(recalls.mean()), 5),
        "probes": len(recalls),
        "search_p99_ratio": round(busy_ms / idle_ms, 2),
        "search_cpu_p99_ratio": round(busy_cpu_ms / idle_cpu_ms, 2),
        "search_idle_p99_ms": round(idle_ms, 3),
        "search_p99_ms": round(busy_ms, 3),
        "unreachable": lost,
        "unreachable_of": asked,
        "graph_unreachable": index.unreachable,
        "rebuilds": driven.rebuilds,
        "rebuild_s": round(index.last_rebuild_s, 1),
        "delta_max": driven.delta_max,
        "moved_p50": round(float(np.median(distances)), 4),
        "moved_p95": round(float(np.percentile(distances, 95)), 4),
        "moved_beyond_epsilon": round(float((distances > config.epsilon).mean()), 4),
        "rows": index.size,
    }
    rows = [
        ("rows refreshed, rebuilds and searches included", f"{figures['refreshed_per_s']:,}/s"),
        ("hnswlib, updated in place", f"{figures['inplace_per_s']:,}/s"),
        ("ratio", f"{figures['ratio']}"),
        ("time that update and maintain took", f"{100 * driven.busy_s / driven.took_s:.0f} %"),
        (f"least recall@{K} of {figures['probes']} probes", f"{figures['recall_at_100_min']}"),
        ("p99 of a search: idle, meanwhile", f"{idle_ms:.2f} ms, {busy_ms:.2f} ms"),
        ("ratio; by processor time", f"{figures['search_p99_ratio']}; {figures['search_cpu_p99_ratio']}"),
        (f"rows not found by their own vector, of {asked:,}", f"{lost}"),
        ("rebuilds, seconds of the last", f"{driven.rebuilds}, {index.last_rebuild_s:.1f} s"),
        ("largest delta", f"{driven.delta_max:,} rows"),
        ("a refresh moves a row by (p50, p95)", f"{figures['moved_p50']}, {figures['moved_p95']}"),
    ]
    report("index", f"Index of {index.size:,} rows that move", rows, figures)


if __name__ == "__main__":
    main()
