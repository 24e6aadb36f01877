"""One HNSW graph over the vectors of some moment. It is never edited: hnswlib's update is slow and strands items.

HNSW loses its way among vectors that are equal or nearly so, and items without a history often are. So equal vectors
share one node, and every graph is measured against an exact search when it is built: it gets the smallest `ef` that
finds what it should, or, if none does, says that a scan is the better search. Then every node is searched for by its
own vector: the rows of those that are not found are named, so that they are looked for elsewhere.

Shapes: G rows, U distinct vectors (nodes), B queries, D dimensions, k results.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import hnswlib
import numpy as np
from numpy.typing import NDArray

from engine.config import IndexConfig
from engine.index.base import Hits, top_k
from engine.index.best import expand_nodes
from engine.numeric.dense import rounding

# Following the graph costs about 0.8 us per unit of ef, a scan 2 to 4 ns per row.
SCAN_ROWS_PER_EF = 256
RECALL_K = 100
# Law 4 wants 0.99; the rest is for vectors that move by less than epsilon after the build. Where only the law is met by
# the widest search that still pays, that one is taken.
GOOD_RECALL = 0.995
MIN_RECALL = 0.99
_PROBES = 64
# So many times ef_search is followed in any graph; a wider search only where a scan would cost more.
_FOLLOWED = 4
# A query for its own vector this wide finds nearly every node, for little; only the rest is asked for again.
_SELF_EF = 8
# With more nodes than this out of reach a graph is not to be trusted with the others.
_MAX_UNREACHABLE = 0.01
_CHUNK = 2048  # nodes added between two looks at `stopped`: 0.1 to 0.4 s
_SEED = 20_240

_log = logging.getLogger(__name__)


def worth_a_graph(size: int, config: IndexConfig) -> bool:
    """False where the configuration wants a scan, and where a search would keep every row as a candidate anyway."""
    return size >= config.scan_below and size > config.ef_search


def build_pieces(size: int) -> int:
    """How often `HnswGraph.build` asks whether it is stopped, for so many vectors, about."""
    return 2 * -(-size // _CHUNK)


class BuildStoppedError(RuntimeError):
    """The build was told to stop before it ended."""


class HnswGraph:
    """An immutable HNSW graph. `build` makes one; one thread may search it.

    Attributes:
        size: G.
        ef: candidates kept while searching, or None where no affordable ef finds what it should.
        recall: recall@100 as measured at the build with this ef (with the last one tried where ef is None), of queries
            or of items, whichever is less.
        unreachable: rows that a search for their own vector did not find at the build; none where ef is None.
    """

    def __init__(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        self.size = len(rows)
        self.ef: int | None = None
        self.recall = 1.0
        self.unreachable = np.empty(0, np.int64)
        self._widest = 0  # that is followed even where a scan would cost less
        self._rows = rows
        self._vectors = vectors
        self._position = np.full(int(rows.max()) + 1 if len(rows) else 0, -1, np.int64)  # row -> 0..G-1
        self._position[rows] = np.arange(len(rows))
        # Node u stands for the rows _members[_first[u] : _first[u + 1]].
        self._members = rows
        self._first = np.arange(len(rows) + 1)
        self._hnsw: hnswlib.Index | None = None

    @classmethod
    def build(
        cls,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        config: IndexConfig,
        queries: NDArray[np.float32] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> HnswGraph:
        """Builds the graph; takes seconds to minutes, most of it without the interpreter lock.

        Args:
            rows: [G] distinct, kept by the graph.
            vectors: [G, D] contiguous, kept by the graph.
            config: `m`, `ef_construction`, `ef_search` and `rebuild_threads` count here; one thread is reproducible.
            queries: [Q, D] what was searched lately, to measure the recall with; items are always part of the measure.
            stopped: asked between chunks; True ends the build.

        Raises:
            BuildStoppedError: `stopped` returned True.
        """
        graph = cls(rows, vectors)
        if graph.size:
            graph._insert(config, stopped)
            graph._choose_ef(config.ef_search, queries)
            if graph.ef is not None:
                graph._find_unreachable(graph.ef, config.rebuild_threads, stopped)
        return graph

    def prefers_scan(self, k: int) -> bool:
        """True where scanning every row is much cheaper than, or the only right way of, finding k."""
        if self.ef is None:
            return True
        width = max(self.ef, k)
        return width > self._widest and width * SCAN_ROWS_PER_EF > len(self._first) - 1

    def distance(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """[R] L2 distance of vectors [R, D] from those that rows [R] were built with; inf for rows it can't reach."""
        distance = np.full(len(rows), np.inf, np.float32)
        known = rows < len(self._position)
        known[known] = self._position[rows[known]] >= 0
        distance[known] = np.linalg.norm(vectors[known] - self._vectors[self._position[rows[known]]], axis=1)
        return distance

    def search(self, queries: NDArray[np.float32], k: int, threads: int = 1) -> Hits:
        """The k best rows [B, k], k >= 1, by the vectors of the build; fewer only where the graph holds fewer."""
        if self._hnsw is None:
            return top_k(self._rows, queries @ self._vectors.T, k)
        nodes = len(self._first) - 1
        want = min(k, nodes)
        self._hnsw.set_ef(max(self.ef or 0, want))
        try:
            node, distance = self._hnsw.knn_query(queries, k=want, num_threads=min(threads, len(queries)))
        except RuntimeError:  # fewer than `want` can be reached from the entry point
            return top_k(self._rows, queries @ self._vectors.T, k)
        hits = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        expand_nodes(node.view(np.int64), distance, self._first, self._members, hits.row, hits.score)
        return hits

    def _insert(self, config: IndexConfig, stopped: Callable[[], bool]) -> None:
        size, dim = self._vectors.shape
        as_bytes = np.ascontiguousarray(self._vectors).view(np.dtype((np.void, 4 * dim)))[:, 0]
        _, first, node = np.unique(as_bytes, return_index=True, return_inverse=True)
        if len(first) < size:
            self._members = self._rows[np.argsort(node, kind="stable")]
            self._first = np.concatenate([[0], np.bincount(node).cumsum()])
            distinct = self._vectors[first]
        else:
            distinct = self._vectors
        hnsw = hnswlib.Index(space="ip", dim=dim)
        hnsw.init_index(len(distinct), M=config.m, ef_construction=config.ef_construction, random_seed=_SEED)
        for start in range(0, len(distinct), _CHUNK):
            if stopped():
                raise BuildStoppedError(f"stopped after {start} of {len(distinct)} vectors")
            chunk = distinct[start : start + _CHUNK]
            hnsw.add_items(chunk, np.arange(start, start + len(chunk)), num_threads=config.rebuild_threads)
        self._hnsw = hnsw

    def _choose_ef(self, ef_search: int, queries: NDArray[np.float32] | None) -> None:
        probes = self._vectors[np.linspace(0, self.size - 1, min(_PROBES, self.size)).astype(np.int64)]
        # Apart, since what is searched for is harder to find than what is there, and counts by itself.
        kinds = [probes] if queries is None or not len(queries) else [probes, queries]
        self.ef, self._widest = ef_search, _FOLLOWED * ef_search
        while not self.prefers_scan(RECALL_K):
            self.recall = min(self._measure(kind) for kind in kinds)
            if self.recall >= GOOD_RECALL:
                return
            self.ef *= 2
        tried = self.ef > ef_search
        if tried and self.recall >= MIN_RECALL:
            self.ef //= 2
            return
        if tried:
            message = "HNSW recall@%d is %.3f with ef=%d, want %.3f: scanning every item instead"
            _log.warning(message, RECALL_K, self.recall, self.ef // 2, MIN_RECALL)
        self.ef = None

    def _find_unreachable(self, ef: int, threads: int, stopped: Callable[[], bool]) -> None:
        """Names the rows of nodes that their own vectors don't lead to, and no more says where they are."""
        count = len(self._first) - 1
        nodes = np.arange(count)
        for width, at_once in ((_SELF_EF, _CHUNK), (ef, 1)):
            parts = [nodes[start : start + at_once] for start in range(0, len(nodes), at_once)]
            missing = []
            for part in parts:
                if stopped():
                    raise BuildStoppedError(f"stopped while {count} nodes were searched for")
                missing.append(part[~self._finds(part, min(width, count), threads)])
            nodes = np.concatenate(missing) if missing else nodes
        if len(nodes) > _MAX_UNREACHABLE * count:
            _log.warning("%d of %d nodes of the HNSW graph can't be reached: scanning instead", len(nodes), count)
            self.ef = None
        elif len(nodes):
            spans = [self._members[self._first[node] : self._first[node + 1]] for node in nodes]
            self.unreachable = np.concatenate(spans)
            self._position[self.unreachable] = -1

    def _finds(self, nodes: NDArray[np.int64], width: int, threads: int) -> NDArray[np.bool_]:
        """Whether nodes [n] are among the `width` nearest that the graph finds for their own vectors."""
        if self._hnsw is None:
            return np.zeros(len(nodes), np.bool_)
        self._hnsw.set_ef(width)
        vectors = self._vectors[self._position[self._members[self._first[nodes]]]]
        try:
            found, _ = self._hnsw.knn_query(vectors, k=width, num_threads=threads)
        except RuntimeError:  # from one of them fewer than `width` are reached
            return np.zeros(len(nodes), np.bool_)
        return (found == nodes[:, None]).any(axis=1)

    def _measure(self, probes: NDArray[np.float32]) -> float:
        k = min(RECALL_K, self.size)
        off = rounding(self._vectors.shape[1])  # hnswlib rounds as it likes
        found = 0
        for probe in np.array_split(probes, max(1, len(probes) // 8)):
            scores = probe @ self._vectors.T
            kth = np.partition(scores, self.size - k, axis=1)[:, self.size - k, None]
            # By score, not by row: among equals any will do.
            found += int((self.search(probe, k).score >= kth - off).sum())
        return found / (k * len(probes))
