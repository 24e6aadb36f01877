"""Runs scorers over a split and puts their figures side by side.

Shapes: B questions at once, N items.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Lister, Questions, Scorer, Split
from trainer.evaluation.metrics import Judge, compare
from trainer.evaluation.ranked import rank
from trainer.evaluation.splits import goes_on

_log = logging.getLogger(__name__)

_AT_ONCE = 256  # questions
_SPAN = 64  # events of the log between the questions of one go, where it goes on: they are not observed yet
_REPORT_S = 15.0
_COMPARED = ("hr", "mrr", "ndcg", "recall")
AMONG_COLD = "among_cold"
AMONG_NEW = "among_new"
AMONG_COLD_NEW = "among_cold_new"
# The targets that are asked about among their like.
_WANTED = {AMONG_COLD: "cold", AMONG_NEW: "new", AMONG_COLD_NEW: "cold_new"}


@dataclass(frozen=True)
class Judged:
    """What one scorer did.

    Attributes:
        among: judges, by part, the lists of cold items only, where those were asked for, and the lists without items
            of the history, where the protocol doesn't leave them out anyway.
        fit_s, score_s: wall time.
        peak_gb: the most memory that the process ever held up to the end of the fit. What came before is in it, so it
            is the fit's own only for the scorer that is judged first.
    """

    judge: Judge
    fit_s: float
    score_s: float
    peak_gb: float
    among: Mapping[str, Judge] = field(default_factory=dict)

    def values(self, part: str) -> dict[str, NDArray[np.float32]]:
        """As `Judge.values`; what is earned among cold items only, or among new ones, is one more part."""
        if part not in _WANTED:
            return self.judge.values(part)
        return self.among[part].values(_WANTED[part]) if part in self.among else {}

    def figures(self) -> dict[str, Any]:
        spent = {"fit_s": self.fit_s, "score_s": self.score_s, "peak_gb": self.peak_gb}
        among = {
            f"{name}_{part}": float(each.mean(dtype=np.float64))
            for part in self.among
            for name, each in self.values(part).items()
            if len(each)
        }
        return self.judge.figures() | among | {name: round(value, 2) for name, value in spent.items()}


def judge(
    scorer: Scorer | Lister,
    events: Events,
    split: Split,
    ks: Sequence[int],
    categories: Mapping[str, Sequence[str]] | None = None,
    *,
    among_cold: bool = False,
    live: bool = False,
    told: int = logging.INFO,
) -> Judged:
    """Fits a scorer, asks it every question, and judges its lists; with `among_cold` those of cold items only, too.

    Its progress is logged at the level `told`.

    Where the log goes on between the questions (`successive`, `prequential`), and where `live` says so, the scorer
    observes it, in the order of the log and never past the first target of the questions that come next. A scorer
    whose own attribute `live` is True or False is asked as that says.
    """
    begun = reported = time.monotonic()
    _log.log(told, "%s: fitting on %d events", scorer.name, len(split.train))
    scorer.fit(events, split.train)
    fitted, peak_gb = time.monotonic(), _peak_gb()
    judged = Judge(events, split.train, ks, categories)
    warm = np.bincount(events.item[split.train], minlength=len(events.items)) > 0  # [N]
    repeats = not split.filter_seen  # lists may hold what the history holds
    wanted = {AMONG_COLD: among_cold, AMONG_NEW: repeats, AMONG_COLD_NEW: among_cold and repeats}
    among = {part: Judge(events, split.train, ks) for part in wanted if wanted[part]}
    live = getattr(scorer, "live", live or goes_on(split))
    late = _late(events, split) if live else np.zeros(0, np.int64)
    for asked, questions in _batches(split.questions, _SPAN if live else None):
        if live:
            seen = int(np.searchsorted(late, questions.order[questions.cut[0]]))
            scorer.observe(late[:seen])
            late = late[seen:]
        answers = _Answers(scorer, questions, events, max(ks))
        judged.add(questions, answers.lists(filter_seen=split.filter_seen))
        if AMONG_NEW in among:
            among[AMONG_NEW].add(questions, answers.lists(filter_seen=True))
        if AMONG_COLD in among:
            among[AMONG_COLD].add(questions, answers.lists(filter_seen=split.filter_seen, among=~warm))
        if AMONG_COLD_NEW in among:
            among[AMONG_COLD_NEW].add(questions, answers.lists(filter_seen=True, among=~warm))
        if time.monotonic() - reported > _REPORT_S:
            reported = time.monotonic()
            _log.log(told, "%s: %d of %d questions", scorer.name, asked, len(split.questions))
    means = {name: float(each.mean(dtype=np.float64)) for name, each in judged.values().items() if len(each)}
    shown = [f"{metric}@{max(ks)}" for metric in _COMPARED]
    _log.log(told, "%s: %s", scorer.name, ", ".join(f"{name} {means[name]:.4f}" for name in shown if name in means))
    return Judged(judged, fitted - begun, time.monotonic() - fitted, peak_gb, among)


class _Answers:
    """One scorer's lists for B questions, of all items or of some."""

    def __init__(self, scorer: Scorer | Lister, questions: Questions, events: Events, k: int) -> None:
        self._lister = scorer if isinstance(scorer, Lister) else None
        self._scores = None if isinstance(scorer, Lister) else scorer.score(questions)  # [B, N]
        self._questions, self._events, self._k = questions, events, k

    def lists(self, *, filter_seen: bool, among: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
        """[B, k] see `Lister.lists`."""
        if self._lister is not None:
            return self._lister.lists(self._questions, self._k, filter_seen=filter_seen, among=among)
        assert self._scores is not None
        scores = self._scores if among is None else np.where(among, self._scores, -np.inf).astype(np.float32)
        return rank(scores, self._questions, self._events, self._k, filter_seen)


def _late(events: Events, split: Split) -> Ints:
    """Positions of what comes after the training, for whoever is live: all but what was learned from."""
    new = np.ones(len(events), np.bool_)
    new[split.train] = False
    new[: int(split.train[-1]) + 1 if goes_on(split) and len(split.train) else 0] = False
    return np.flatnonzero(new)


def ratios(
    ours: Judged, peers: Mapping[str, Judged], ks: Sequence[int], parts: Sequence[str] = ("", "new")
) -> dict[str, Any]:
    """By name@k of all targets ("") or name@k_part: ours over the best peer's, with a 95% interval.

    There is no ratio where nothing was asked, and where no peer earned anything.
    """
    found: dict[str, Any] = {}
    for part in parts:
        values = ours.values(part)
        theirs = {name: peer.values(part) for name, peer in peers.items()}
        for name in (f"{metric}@{k}" for metric in _COMPARED for k in ks):
            if not theirs or not len(values[name]):
                continue
            best = max(theirs, key=lambda peer: float(theirs[peer][name].mean(dtype=np.float64)))
            if not theirs[best][name].any():
                continue
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


def _batches(questions: Questions, span: int | None) -> Iterator[tuple[int, Questions]]:
    """Questions that are asked in one go, with how many came before; all lie within `span` events of the log."""
    position = questions.order[questions.cut]
    first = 0
    while first < len(position):
        end = first + _AT_ONCE
        if span is not None:
            end = min(end, int(np.searchsorted(position, position[first] + span)))
        yield first, questions.select(slice(first, end))
        first = end
