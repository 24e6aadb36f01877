"""The index that follows the model: an immutable graph, an exact delta, and the current vectors.

A row is found in one of two ways. Rows whose vector moved by at most `epsilon` since the graph was built are found
through the graph and scored by their current vector; all others are in the delta and searched exactly. When the delta
outgrows its share, a new graph is built aside, in a thread, from a copy; what moved meanwhile is in its delta.

Shapes: N one past the highest row seen, B queries, D dimensions, k results, R rows in an update.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.config import IndexConfig
from engine.index.base import Hits, latest
from engine.index.best import score_anew, settle
from engine.index.exact import CODED_FROM, ExactIndex, grown
from engine.index.hnsw import MIN_RECALL, RECALL_K, SCAN_ROWS_PER_EF, HnswGraph, worth_a_graph
from engine.index.probe import RecallProbe
from engine.numeric.dense import rounding

# A smaller delta is searched in less time than a query spends in the graph.
MIN_DELTA = 1000
RETRY_S = 10.0
_RECENT_QUERIES = 64
# With so large a share in the delta, a scan of everything costs less than the graph, the delta and, often, a second
# and wider look.
_SCAN_FROM = 0.25
# Where most of the latest searches of the graph had to look wider, as while vectors move much, only one search in so
# many asks it again.
_TRY_EVERY = 64
_LATELY = 16  # searches
# Where more than this share of the graph is masked, a search of it looks much wider for the few that count, so that a
# scan of these few may cost less.
_MASKED_FROM = 0.5

Build = Callable[
    [NDArray[np.int64], NDArray[np.float32], IndexConfig, NDArray[np.float32] | None, Callable[[], bool]], HnswGraph
]

_NONE = ExactIndex(1).held()

_log = logging.getLogger(__name__)


class LiveIndex:
    """Approximate search over vectors that keep moving. One thread owns it; the rebuild runs in another.

    A catalog below `scan_below`, or one that a single search would see whole (`ef_search` rows), gets no graph: it is
    all delta. Rows that the graph holds and can't reach are in the delta too.

    Args:
        dim: D.
        config: sizes of the graph and when it is rebuilt.
        build_inline: `maintain` builds in the calling thread, for runs that must be reproducible step by step.
        build: makes the graph, in the rebuild thread.
        clock: monotonic seconds, for the wait after a failed build and between two probes.

    Attributes:
        search_threads: that search the graph for several queries at once.
    """

    def __init__(
        self,
        dim: int,
        config: IndexConfig,
        *,
        build_inline: bool = False,
        build: Build = HnswGraph.build,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dim = dim
        self._config = config
        self._build_inline = build_inline
        self._build = build
        self._clock = clock
        self._current = ExactIndex(dim)
        self._delta = ExactIndex(dim)
        self._graph = HnswGraph(np.empty(0, np.int64), np.empty((0, dim), np.float32))
        self._served = np.zeros(0, np.bool_)  # [N] found through the graph: it is there and has hardly moved
        self._served_count = 0
        self._touched = np.zeros(0, np.bool_)  # [N] updated since the last copy was taken for a build
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=_RECENT_QUERIES)
        self._probe = RecallProbe(config.probe_queries, config.probe_interval_s, clock)
        self._rebuild: _Rebuild | None = None
        self._wider = 0.0  # share of the latest searches of the graph that looked wider
        self._untried = 0  # searches since the graph was last asked
        self._retry_at_s = -np.inf
        self.search_threads = 1
        self._closed = False
        self._rebuilds = 0
        self._failures = 0
        self._last_rebuild_s = 0.0

    @classmethod
    def build(
        cls,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        config: IndexConfig,
        stopped: Callable[[], bool] = lambda: False,
        queries: NDArray[np.float32] | None = None,
        search_threads: int = 1,
    ) -> LiveIndex:
        """An index of rows [R] and vectors [R, D] with its graph ready; takes as long as the graph does.

        Args:
            queries: [Q, D] of the kind that will be searched for, to measure the graph with.

        Raises:
            BuildStoppedError: `stopped`, asked now and then, returned True.
        """
        index = cls(vectors.shape[1], config)
        index.search_threads = search_threads
        index.update(rows, vectors)
        if worth_a_graph(index.size, config):
            rows, vectors = index._current.rows.copy(), index._current.vectors.copy()
            graph = HnswGraph.build(rows, vectors, config, queries, stopped)
            index._touched[:] = False
            index._adopt(graph)
        return index

    @property
    def size(self) -> int:
        """Rows that a search can return."""
        return self._current.size

    @property
    def delta_size(self) -> int:
        """Rows searched exactly."""
        return self._delta.size

    @property
    def rebuilds(self) -> int:
        """Graphs adopted from a rebuild so far."""
        return self._rebuilds

    @property
    def failures(self) -> int:
        """Rebuilds that raised."""
        return self._failures

    @property
    def rebuilding(self) -> bool:
        return self._rebuild is not None

    @property
    def last_rebuild_s(self) -> float:
        """How long the build of the newest adopted graph took; 0 before the first."""
        return self._last_rebuild_s

    @property
    def graph_recall(self) -> float:
        """Recall@100 of the graph as measured at its build; 1 without a graph."""
        return self._graph.recall

    @property
    def live_recall(self) -> float:
        """Mean recall@100 of the latest sampled searches, each against an exact one; nan before the first."""
        return self._probe.recall

    @property
    def probes(self) -> int:
        """Searches sampled so far."""
        return self._probe.count

    @property
    def unreachable(self) -> int:
        """Rows that the graph did not find by their own vectors when it was built; the delta has them."""
        return len(self._graph.unreachable)

    def update(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Gives rows [R] the vectors [R, D], at once; of a row given twice the last vector counts."""
        if len(rows) == 0:
            return
        rows, vectors = latest(rows, vectors)  # rising from here on
        if rows[-1] >= len(self._served):
            self._served = grown(self._served, int(rows[-1]) + 1)
            self._touched = grown(self._touched, int(rows[-1]) + 1)
        self._current.put(rows, vectors)
        self._touched[rows] = True
        moved = self._graph.distance(rows, vectors) > self._config.epsilon
        self._serve(rows, ~moved)
        if moved.all():
            self._delta.put(rows, vectors)
        else:
            self._delta.delete(rows[~moved])
            self._delta.put(rows[moved], vectors[moved])

    def delete(self, rows: NDArray[np.int64]) -> None:
        """Rows [R] are not returned any more until they are updated again; unknown rows are ignored."""
        rows = np.unique(rows)
        rows = rows[rows < len(self._served)]
        self._serve(rows, np.zeros(len(rows), np.bool_))
        self._delta.delete(rows)
        self._current.delete(rows)

    def search(self, queries: NDArray[np.float32], k: int) -> Hits:
        """The k best rows, k >= 1, for each of the queries [B, D] by the current vectors."""
        queries = np.ascontiguousarray(queries, np.float32)
        self._recent.extend(queries[-_RECENT_QUERIES:].copy())
        self._probe.offer(queries)
        return self._search(queries, k)

    def _search(self, queries: NDArray[np.float32], k: int) -> Hits:
        # Some graph results are masked and some change places when scored anew: fetch more than k.
        fetch = k + k // 2
        if self._graph.prefers_scan(fetch) or self._delta.size > _SCAN_FROM * self._current.size:
            return self._current.search(queries, k)
        if self._mostly_masked(fetch):
            return self._current.search(queries, k)
        if self._wider > 0.5 and self._untried < _TRY_EVERY:
            self._untried += 1
            return self._current.search(queries, k)
        self._untried = 0
        return self._search_both(queries, None, k, fetch)

    def _mostly_masked(self, fetch: int) -> bool:
        """Whether so much of the graph is masked that finding `fetch` rows in it costs more than a scan of all rows."""
        size, served = self._graph.size, self._served_count
        if served >= (1 - _MASKED_FROM) * size:
            return False
        return fetch * size * SCAN_ROWS_PER_EF > served * self._current.size

    def maintain(self) -> bool:
        """Starts a rebuild when one is due and adopts it when it is done: call it once per step, when nobody waits.

        A search that was sampled is made again here, and compared with an exact one.

        Returns:
            True when a new graph was adopted. A build that raised is logged and tried again later; meanwhile the old
            graph goes on.
        """
        query = self._probe.due()
        if query is not None:
            self._probe.measure(query, self._search, self._current.search)
        if self._rebuild is None and self._due():
            self._touched[:] = False
            recent = np.stack(self._recent) if self._recent else None
            args = (self._current.rows.copy(), self._current.vectors.copy(), self._config, recent)
            self._rebuild = _Rebuild(lambda stopped: self._build(*args, stopped), inline=self._build_inline)
        if self._rebuild is None or not self._rebuild.done:
            return False
        finished, self._rebuild = self._rebuild, None
        if finished.graph is None:
            self._failures += 1
            self._retry_at_s = self._clock() + RETRY_S
            _log.error("index rebuild failed, next try in %g s: %r", RETRY_S, finished.error, exc_info=finished.error)
            return False
        self._adopt(finished.graph)
        self._rebuilds += 1
        self._last_rebuild_s = finished.took_s
        return True

    def close(self) -> None:
        """Ends a running rebuild and starts no other. Safe to call twice."""
        self._closed = True
        if self._rebuild is not None:
            self._rebuild.stop()
            self._rebuild = None

    def _search_both(self, queries: NDArray[np.float32], delta: Hits | None, k: int, fetch: int) -> Hits:
        """Graph and delta together; `delta` where a narrower search of the graph has looked there already."""
        found = self._graph.search(queries, fetch, self.search_threads)  # [B, fetch], by the vectors of the build
        current, small = self._current.held(), self._delta.size < CODED_FROM
        if delta is None and small:  # It is looked at below, in the same call.
            delta = Hits(found.row[:, :0], found.score[:, :0])
        elif delta is None:
            # Nothing in the delta counts that scores less than the k-th of the graph.
            _, kth, _ = score_anew(queries, found, self._served, current, k)
            delta = self._delta.search(queries, k, kth)
        looked_at = self._delta.held() if small else _NONE
        wanted = float(RECALL_K), rounding(self._dim)  # hnswlib rounds as it likes
        hits, misses = settle(queries, found, self._served, current, looked_at, delta, k, wanted)
        short = np.flatnonzero(misses)
        if fetch == k + k // 2:  # the first look
            self._wider += (len(short) / max(1, len(queries)) - self._wider) / _LATELY
        if len(short):
            queries, delta, fetch = queries[short], Hits(delta.row[short], delta.score[short]), 4 * fetch
            if self._graph.prefers_scan(fetch):
                wider = self._current.search(queries, k)
            else:
                wider = self._search_both(queries, delta, k, fetch)
            hits.row[short], hits.score[short] = wider.row, wider.score
        return hits

    def _serve(self, rows: NDArray[np.int64], served: NDArray[np.bool_]) -> None:
        self._served_count += int(np.count_nonzero(served)) - int(np.count_nonzero(self._served[rows]))
        self._served[rows] = served

    def _due(self) -> bool:
        if self._closed or not worth_a_graph(self.size, self._config) or self._clock() < self._retry_at_s:
            return False
        if self._probe.low(MIN_RECALL):
            return True
        masked = self._graph.size - self._served_count
        # A catalog so small that searches scan it from a quarter on, at little cost, is not built anew before half.
        smallest = min(MIN_DELTA, self._current.size // 2)
        return max(self._delta.size, masked) > max(smallest, self._config.max_delta * self._current.size)

    def _adopt(self, graph: HnswGraph) -> None:
        """Takes a graph of every row as it was when `_touched` was cleared."""
        rows = self._current.rows
        self._touched[graph.unreachable] = True  # so that they go into the delta with what has moved
        touched = rows[self._touched[rows]]
        vectors = self._current.take(touched)
        moved = graph.distance(touched, vectors) > self._config.epsilon
        self._served[:] = False
        self._served[rows] = True
        self._served[touched[moved]] = False
        self._delta = ExactIndex(self._dim)
        self._delta.update(touched[moved], vectors[moved])
        self._served_count = len(rows) - self._delta.size
        self._graph = graph
        self._wider = 0.0
        self._probe.begin_anew()


class _Rebuild:
    """One build in its own thread, or inline; `graph` or `error` is set once `done`."""

    def __init__(self, build: Callable[[Callable[[], bool]], HnswGraph], *, inline: bool) -> None:
        self.graph: HnswGraph | None = None
        self.error: Exception | None = None
        self.took_s = 0.0
        self._build = build
        self._stop = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-rebuild", daemon=True)
        if inline:
            self._run()
        else:
            self._thread.start()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def stop(self) -> None:
        """Tells the build to end and waits for it: at most one chunk of the graph."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        start_s = time.monotonic()
        try:
            self.graph = self._build(self._stop.is_set)
        except Exception as error:
            self.error = error
        self.took_s = time.monotonic() - start_s
        self._done.set()
