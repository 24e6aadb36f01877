"""Judges frozen weights on a slice of the log in log order: is what came next among what would have been shown?

Shapes: B questions, T targets of each.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.ranking.lists import make_lists
from engine.ranking.page import Page
from engine.ranking.query import Query
from engine.ranking.related import padded
from engine.ranking.scorers import SCORERS
from engine.signals import Stopped
from trainer.data.log import Questions
from trainer.dataset import Histories
from trainer.evaluation.ranked import earned
from trainer.forward import ItemForward
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.walk import WalkPoint, walk

K = 20
JUDGED = f"ndcg@{K}"  # the figure by which models are compared
_COVERED = 10
COVERAGE = f"coverage@{_COVERED}"
_NAMES = {f"hr@{K}": f"hit_rate@{K}", JUDGED: JUDGED}
_QUERY = Query("", "", K)


def evaluate(
    forward: ItemForward,
    data: TrainingData,
    histories: Histories,
    questions: Questions,
    stop: threading.Event,
    progress: Progress,
) -> dict[str, float]:
    """Asks the questions of the model, and of the scorers that serve where there is none.

    Returns:
        hit_rate@20, ndcg@20 and coverage@10, the share of all items that the lists begin with, of the model; the same
        with the name of each scorer and `_` before them; and `events`, how many questions there were.

    Raises:
        Stopped: `stop` was set.
    """
    got: defaultdict[str, list[NDArray[np.float32]]] = defaultdict(list)
    shown: defaultdict[str, set[int]] = defaultdict(set)
    for point in walk(forward, data, histories, questions, _QUERY):
        if stop.is_set():
            raise Stopped
        made = {"": make_lists(point.asked, point.moment, point.model, data.ranking).pages}
        for name, scorer in SCORERS.items():
            made[f"{name}_"] = [scored.page for scored in scorer(point.asked, point.moment, data.ranking)]
        for name, pages in made.items():
            shown[name].update(row for page in pages for row in page.row[:_COVERED].tolist())
            for figure, values in _earned(pages, point).items():
                got[name + figure].append(values)
        progress.update("evaluation", point.done)
    metrics = {"events": float(len(questions))}
    for whose in ("", *(f"{name}_" for name in SCORERS)):
        for name in (whose + figure for figure in _NAMES.values()):
            metrics[name] = float(np.concatenate(got[name]).mean()) if got[name] else 0.0
        metrics[whose + COVERAGE] = len(shown[whose]) / max(1, data.items)
    return metrics


def best_scorer(metrics: dict[str, float]) -> tuple[str, float]:
    """The scorer without a model that is best by `JUDGED`, and its figure."""
    name = max(SCORERS, key=lambda name: metrics[f"{name}_{JUDGED}"])
    return name, metrics[f"{name}_{JUDGED}"]


def _earned(pages: Sequence[Page], point: WalkPoint) -> dict[str, NDArray[np.float32]]:
    """[B] by figure what the lists earned."""
    figures = earned(padded([page.row for page in pages]), point.targets.numpy(), (K,))
    return {ours: figures[theirs] for theirs, ours in _NAMES.items()}
