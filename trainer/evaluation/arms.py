"""The model's arms where the log goes on: what being live is worth, and what training on top of it is.

Shapes: B questions.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.log import Events, Ints, Questions
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.ranker import Example, as_examples, fit_ranker
from trainer.walk import Lists

_RETRAIN_QUESTIONS = 1024  # between two trainings
_KEPT_EXAMPLES = 512  # newest batches that a training learns from
_RETRAIN_RATE = 0.1  # of the learning rate of the first training


class FrozenOusel:
    """Nothing is learned or seen after training: neither state nor histories go on."""

    name = "ousel_frozen"

    def __init__(self, ousel: OuselScorer) -> None:
        self._ousel = ousel
        self._end = 0

    def fit(self, events: Events, train: Ints) -> None:
        self._ousel.fit(events, train)
        self._end = int(train[-1]) + 1 if len(train) else 0

    def observe(self, positions: Ints) -> None:
        pass

    def score(self, questions: Questions) -> NDArray[np.float32]:
        late = np.concatenate([[0], (questions.order >= self._end).cumsum()])
        later = late[questions.cut] - late[questions.first]  # what lies behind training is at the end of a history
        return self._ousel.score(Questions(questions.order, questions.first, questions.cut - later, questions.end))


class RetrainedOusel:
    """A live state as that of `ousel`, and a ranker that is trained on as the log goes on.

    What it learns from are the lists that it gave, once their targets have been observed.
    """

    name = "ousel_retrained"

    def __init__(self, ousel: OuselScorer) -> None:
        self._ousel = ousel
        self._events: Events | None = None
        self._pending: list[tuple[Questions, Lists]] = []
        self._examples: deque[Example] = deque(maxlen=_KEPT_EXAMPLES)
        self._asked = 0

    def fit(self, events: Events, train: Ints) -> None:
        self._ousel.fit(events, train)
        self._events = events
        # Among what is new there is always some of the old: a few new lists alone would teach what is theirs by chance.
        self._examples.extend(self._ousel.examples)

    def observe(self, positions: Ints) -> None:
        assert self._events is not None, "fit comes first"
        self._ousel.observe(positions)
        if not len(positions):
            return
        for questions, lists in self._pending:
            done = questions.order[questions.end - 1] <= positions[-1]
            self._examples.extend(as_examples(self._events, questions, lists, done))
        self._pending.clear()
        if self._asked >= _RETRAIN_QUESTIONS and self._examples:
            self._asked = 0
            settings = self._ousel.settings
            rate = _RETRAIN_RATE * settings.ranker_learning_rate
            fit_ranker(self._ousel.ranker, list(self._examples), 1, rate, settings.seed)

    def score(self, questions: Questions) -> NDArray[np.float32]:
        lists = self._ousel.lists(questions)
        self._pending.append((questions, lists))
        self._asked += len(questions)
        return self._ousel.rank(questions, lists)
