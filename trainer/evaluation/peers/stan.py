"""Sequence and time aware neighborhoods: STAN.

Garg, Gupta, Malhotra, Vig and Shroff, "Sequence and time aware neighborhood for session-based recommendations: STAN",
SIGIR 2019.

Shapes: B questions, N items, L distinct items of a running session, C candidates, K neighbors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.peers.session_index import Query, SessionIndex, nearest
from trainer.evaluation.peers.session_neighbors import SessionNeighbors

_DAY_S = 86_400.0


class STAN(SessionNeighbors):
    """Items of the k sessions most like the running one, with three factors that fade exponentially.

    1. The similarity of a past session is the sum, over the shared items, of exp(-age / lambda_spw), where the newest
       event of the running session has the age 0, divided by sqrt(events of the one * events of the other).
    2. A neighbor's vote is its similarity times exp(-seconds since its last event / lambda_snh); where the log has
       only an order, the similarity alone.
    3. Each of its items earns that vote times exp(-steps / lambda_inh), counted within the neighbor from its last
       event with the newest shared item.

    Attributes:
        lambda_spw, lambda_inh: in events.
        lambda_snh: in seconds.
        repeats: whether an item that a neighbor has several times earns as often, or only by the last.
    """

    name = "stan"

    def __init__(
        self,
        k: int = 500,
        sample: int = 5000,
        lambda_spw: float = 0.5,
        lambda_snh: float = 5 * _DAY_S,
        lambda_inh: float = 2.0,
        repeats: bool = True,
        window: int = 50,
    ) -> None:
        super().__init__(k, sample, repeats, window)
        for name, value in (("lambda_spw", lambda_spw), ("lambda_snh", lambda_snh), ("lambda_inh", lambda_inh)):
            if not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")
        self.lambda_spw, self.lambda_snh, self.lambda_inh = lambda_spw, lambda_snh, lambda_inh

    def _votes(self, index: SessionIndex, query: Query) -> NDArray[np.float64]:
        # Step 1. The neighbors.
        found = index.candidates(query, np.exp(-query.age / self.lambda_spw), self.sample)
        length = index.start[found.row + 1] - index.start[found.row]
        similarity = found.overlap / np.sqrt(length * query.length)  # [C]
        kept = nearest(similarity, self.k)
        found, vote = found.select(kept), similarity[kept]
        # Step 2. What each of them weighs.
        if index.timed:
            # A session that goes on after the question's moment has no age yet.
            vote = vote * np.exp(-np.maximum(0.0, query.time - index.time[found.row]) / self.lambda_snh)  # [K]
        # Step 3. Their items, by distance from the newest shared one.
        place, neighbor = index.events_of(found.row)
        latest = index.latest[place]
        matched = np.empty(len(found.row), np.int64)
        at = latest & (index.item[place] == found.item[neighbor])  # one event of each neighbor
        matched[neighbor[at]] = place[at]
        if not self.repeats:
            place, neighbor = place[latest], neighbor[latest]
        vote = vote[neighbor] * np.exp(-np.abs(place - matched[neighbor]) / self.lambda_inh)
        votes = np.asarray(np.bincount(index.item[place], vote, minlength=len(index.count)), np.float64)
        # Where all neighbors are old or match what is long past, float32 has no room for e to that power.
        return votes / (votes.max() or 1.0)
