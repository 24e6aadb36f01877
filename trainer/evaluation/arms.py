"""The model's arms where the log goes on: what being live is worth, and what training on top of it is.

Shapes: B questions.
"""

from __future__ import annotations

import copy
import logging
from collections import deque

import numpy as np
from numpy.typing import NDArray

from trainer.data.log import Events, Ints, Questions
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.ranker import Example, as_examples, fit_ranker, list_loss
from trainer.walk import Lists

_log = logging.getLogger(__name__)

_RETRAIN_QUESTIONS = 1024  # between two trainings
_GATE_SHARE = 0.25  # of the lists since the last training
_KEPT_EXAMPLES = 512  # newest batches that a training learns from
_RETRAIN_RATE = 0.05  # of the learning rate of the first training


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

    What it learns from are the lists that it gave, once their targets have been observed. As in the trainer a gate lets
    only what is no worse serve: the newest lists are kept from a training to judge it by, and learned from in the next.
    """

    name = "ousel_retrained"

    def __init__(self, ousel: OuselScorer) -> None:
        self._ousel = ousel
        self._events: Events | None = None
        self._pending: list[tuple[Questions, Lists]] = []
        self._examples: deque[Example] = deque(maxlen=_KEPT_EXAMPLES)
        self._newest: list[Example] = []  # since the last training
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
            self._newest += as_examples(self._events, questions, lists, done)
        self._pending.clear()
        if self._asked >= _RETRAIN_QUESTIONS and self._newest:
            self._asked = 0
            self._train()

    def _train(self) -> None:
        settings, ranker = self._ousel.settings, self._ousel.ranker
        learned = round((1 - _GATE_SHARE) * len(self._newest))
        self._examples.extend(self._newest[:learned])
        judged, self._newest = self._newest[learned:], self._newest[learned:]
        before, old = list_loss(ranker, judged), copy.deepcopy(ranker.state_dict())
        rate = _RETRAIN_RATE * settings.ranker_learning_rate
        fit_ranker(ranker, list(self._examples), 1, rate, settings.seed)
        after = list_loss(ranker, judged)
        _log.info("retrained on %d batches, loss of %d newer ones %.4f before and %.4f after", len(self._examples),
                  len(judged), before, after)  # fmt: skip
        if after > before:
            ranker.load_state_dict(old)

    def score(self, questions: Questions) -> NDArray[np.float32]:
        lists = self._ousel.lists(questions)
        self._pending.append((questions, lists))
        self._asked += len(questions)
        return self._ousel.rank(questions, lists)
