"""What retrieval by HNSW costs against an exact search: the same questions, the same vectors, the same filter.

Shapes: B questions, N items, M of them known, U nodes, d width, K places of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import hnswlib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.config import IndexConfig
from trainer.data.log import Events, Ints, Questions, Split
from trainer.evaluation.metrics import Judge
from trainer.evaluation.ranked import hits, rank

_AT_ONCE = 256
_SEED = 1


class Retriever(Protocol):
    """A scorer that answers with vectors: the nearer an item's to a question's, the better."""

    def vectors(self, questions: Questions) -> tuple[Tensor, Tensor, Tensor]:
        """Of the questions [B, d] and the items [N, d], all of length 1, and [N] whether an item may be an answer."""


class Graph:
    """A plain HNSW graph over the known items, with the engine's M, ef_construction and ef_search.

    As in the engine, equal vectors share a node. Unlike there, no probe raises ef where it finds too little, and no
    scan takes the place of a graph over few items: what is measured is the graph itself.
    """

    def __init__(self, table: NDArray[np.float32], known: NDArray[np.bool_], config: IndexConfig) -> None:
        """Builds it from vectors [N, d] with one thread, so that it is the same in every run."""
        distinct, node = np.unique(table[known], axis=0, return_inverse=True)
        self.nodes = len(distinct)
        self._ef = config.ef_search
        self._node = np.full(len(table), self.nodes)  # [N] the last, which is never found, where an item is not known
        self._node[known] = node
        self._hnsw = hnswlib.Index(space="ip", dim=table.shape[1])
        self._hnsw.init_index(self.nodes, M=config.m, ef_construction=config.ef_construction, random_seed=_SEED)
        self._hnsw.add_items(distinct, num_threads=1)

    def found(self, query: NDArray[np.float32], want: Ints) -> NDArray[np.bool_]:
        """[B, N] which items the graph answers to queries [B, d], at least `want` [B] of each where it holds so many.

        It is asked for ef_search nodes, which cost nothing more, and for the next power of two where more are wanted:
        one large `want` must not widen the search of all.
        """
        found = np.zeros((len(query), self.nodes + 1), np.bool_)
        wider = 2 ** np.ceil(np.log2(np.maximum(want, 1))).astype(np.int64)
        asked = np.minimum(np.maximum(self._ef, wider), self.nodes)  # [B]
        for k in np.unique(asked).tolist():
            rows = np.flatnonzero(asked == k)
            self._hnsw.set_ef(k)
            try:
                node, _ = self._hnsw.knn_query(query[rows], k=k, num_threads=1)
            except RuntimeError:  # fewer can be reached; the engine scans then
                found[rows, : self.nodes] = True
            else:
                found[rows[:, None], node.astype(np.int64)] = True
        return found[:, self._node]


def index_figures(
    scorer: Retriever, events: Events, split: Split, ks: Sequence[int], config: IndexConfig | None = None
) -> dict[str, Any]:
    """Asks every question of `split` once exactly and once through the graph.

    Both are ranked by exact cosine. Where items of the history are filtered, the graph is asked for as many more as the
    history is long. Where the scorer's vectors change with the log, these are the ones at its end.

    Returns:
        recall@K: share of the exact lists of the largest k that the graph's lists hold. ndcg@k_exact, ndcg@k_hnsw, and
        ndcg_cost@k: the share of the first that is lost, 0 where there is none to lose. M, nodes U, and the settings.
    """
    config = config or IndexConfig()
    longest = max(ks)
    graph: Graph | None = None
    exact, approximate = (Judge(events, split.train, ks) for _ in range(2))
    kept = listed = items = 0
    for first in range(0, len(split.questions), _AT_ONCE):
        questions = split.questions.select(slice(first, first + _AT_ONCE))
        query, table, known = (tensor.numpy() for tensor in scorer.vectors(questions))
        if graph is None:
            graph, items = Graph(table, known, config), int(known.sum())
        scores = query @ table.T  # [B, N]
        scores[:, ~known] = -np.inf
        lists = rank(scores, questions, events, longest, split.filter_seen)
        filtered = questions.cut - questions.first if split.filter_seen else np.zeros(len(questions), np.int64)
        scores[~graph.found(query, longest + filtered)] = -np.inf
        found = rank(scores, questions, events, longest, split.filter_seen)
        row, place = np.nonzero(lists >= 0)
        kept += int(hits(found, row, lists[row, place].astype(np.int64), len(known)).sum())
        listed += len(row)
        exact.add(questions, lists)
        approximate.add(questions, found)
    figures: dict[str, Any] = {
        "items": items,
        "nodes": graph.nodes if graph else 0,
        **config.model_dump(include={"m", "ef_construction", "ef_search"}),
        f"recall@{longest}": kept / max(1, listed),
    }
    for k in ks:
        best, got = (float(judge.values()[f"ndcg@{k}"].mean(dtype=np.float64)) for judge in (exact, approximate))
        figures |= {
            f"ndcg@{k}_exact": best,
            f"ndcg@{k}_hnsw": got,
            f"ndcg_cost@{k}": 1 - got / best if best else 0.0,
        }
    return figures
