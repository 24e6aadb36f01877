"""Runs scorers over a split and puts their figures side by side.

Shapes: B questions at once, N items.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.evaluation.log import Events, Questions, Scorer, Split
from trainer.evaluation.metrics import Judge, compare
from trainer.evaluation.ranked import rank
from trainer.evaluation.splits import PREQUENTIAL, SUCCESSIVE

_log = logging.getLogger(__name__)

_AT_ONCE = 256  # questions; what happens within them is not observed yet
_REPORT_S = 15.0
_COMPARED = ("hr", "mrr", "ndcg", "recall")


@dataclass(frozen=True)
class Judged:
    """What one scorer did.

    Attributes:
        fit_s, score_s: wall time.
        peak_gb: the most memory that the process ever held up to the end of the fit. What came before is in it, so it
            is the fit's own only for the scorer that is judged first.
    """

    judge: Judge
    fit_s: float
    score_s: float
    peak_gb: float

    def figures(self) -> dict[str, Any]:
        spent = {"fit_s": self.fit_s, "score_s": self.score_s, "peak_gb": self.peak_gb}
        return self.judge.figures() | {name: round(value, 2) for name, value in spent.items()}


def judge(
    scorer: Scorer,
    events: Events,
    split: Split,
    ks: Sequence[int],
    categories: Mapping[str, Sequence[str]] | None = None,
) -> Judged:
    """Fits a scorer, asks it every question, and judges its lists.

    Where the log goes on between the questions (`successive`, `prequential`) the scorer observes it, in the order of
    the log and never past the first target of the questions that come next.
    """
    begun = reported = time.monotonic()
    _log.info("%s: fitting on %d events", scorer.name, len(split.train))
    scorer.fit(events, split.train)
    fitted, peak_gb = time.monotonic(), _peak_gb()
    judged = Judge(events, split.train, ks, categories)
    goes_on = split.protocol in (SUCCESSIVE, PREQUENTIAL)
    known = int(split.train[-1]) + 1 if len(split.train) else 0
    for asked, questions in _batches(split.questions):
        if goes_on:
            until = int(questions.order[questions.cut[0]])
            scorer.observe(np.arange(known, until))
            known = max(known, until)
        scores = scorer.score(questions)
        judged.add(questions, rank(scores, questions, events, max(ks), split.filter_seen))
        if time.monotonic() - reported > _REPORT_S:
            reported = time.monotonic()
            _log.info("%s: %d of %d questions", scorer.name, asked, len(split.questions))
    return Judged(judged, fitted - begun, time.monotonic() - fitted, peak_gb)


def ratios(ours: Judged, peers: Mapping[str, Judged], ks: Sequence[int]) -> dict[str, Any]:
    """By name@k, and by name@k_new for the new targets alone: ours over the best peer's, with a 95% interval."""
    found: dict[str, Any] = {}
    for part in ("", "new"):
        values = ours.judge.values(part)
        theirs = {name: peer.judge.values(part) for name, peer in peers.items()}
        for name in (f"{metric}@{k}" for metric in _COMPARED for k in ks):
            if not theirs or not len(values[name]):
                continue
            best = max(theirs, key=lambda peer: float(theirs[peer][name].mean(dtype=np.float64)))
            ratio = compare(values[name], theirs[best][name])
            found[f"{name}_{part}" if part else name] = {
                "best_peer": best,
                "ratio": ratio.ratio,
                "interval": [ratio.low, ratio.high],
            }
    return found


def _peak_gb() -> float:
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 1e9


def _batches(questions: Questions) -> Iterator[tuple[int, Questions]]:
    for first in range(0, len(questions), _AT_ONCE):
        yield first, questions.select(slice(first, first + _AT_ONCE))
