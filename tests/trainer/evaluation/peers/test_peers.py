"""What all peers have in common."""

from __future__ import annotations

import numpy as np

from tests.trainer.evaluation.logs import log_of
from tests.trainer.evaluation.peers.cases import of_histories
from trainer.evaluation.peers.tuning import CHOICES


def test_all_answer_where_nothing_was_learned() -> None:
    log = log_of([(0, 0, 1, 0.0)])
    for peer in (kind() for kind in CHOICES):
        peer.fit(log, np.zeros(0, np.int64))
        peer.observe(np.zeros(0, np.int64))
        scores = peer.score(of_histories([[], [0]]))
        assert scores.shape == (2, 6)
        assert np.isfinite(scores).all()
