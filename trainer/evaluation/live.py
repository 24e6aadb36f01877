"""The live state as a file's log makes it: the rings and popularity that candidates and the ranker read.

Shapes: E events, B questions, K remembered events, N items.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import RankingConfig, StateConfig
from engine.ranking.asked import Asked
from engine.ranking.query import Query
from engine.state.ring import Neighbors
from trainer.data.log import Events, Ints, Questions
from trainer.live_fold import LiveFold
from trainer.replay import EventLog, TrainingData
from trainer.walk import asked_of


class LiveState:
    """Folds events in log order, and shows the moment of a question.

    Args:
        by_session: whether histories are those of sessions or of users.
        history, neighbors: edges kept per owner and per item; see `StateConfig`.
        group: [N] what stands for each item's categories; see `Catalog`.

    Attributes:
        graph: the rings.
        moment: what lists read.
        until: one past the last position that was folded.
    """

    def __init__(
        self, events: Events, *, by_session: bool, history: int, neighbors: int, group: NDArray[np.int64]
    ) -> None:
        self.columns = columns_of(events, by_session)
        self.until = 0
        self._history = history
        data = TrainingData.without_catalog(
            self.columns.slice(0, 0), len(events.sessions if by_session else events.users), events.items,
            int(events.kind.max(initial=0)) + 1, StateConfig(history=history, neighbors=neighbors), RankingConfig(),
        )  # fmt: skip
        self.moment = LiveFold(replace(data, group=group))
        self.graph = self.moment.graph

    def fold(self, positions: Ints) -> None:
        """Takes in events at `positions`, rising."""
        if not len(positions):
            return
        self.until = int(positions[-1]) + 1
        at = torch.from_numpy(positions)
        log = EventLog(*(column[at] for column in vars(self.columns).values()))
        self.moment.fold(log)

    def history(self, questions: Questions, n: int) -> Neighbors:
        """[B, n] the last events that each question knows of."""
        back = np.arange(n, 0, -1)
        place = questions.cut[:, None] - back  # [B, n]
        known = torch.from_numpy(place >= questions.first[:, None])
        at = torch.from_numpy(questions.order[np.maximum(place, 0)])
        return _neighbors(self.columns, at, known)

    def asked(self, questions: Questions, query: Query) -> Asked:
        """The same query for each of the questions."""
        users = self.columns.user[torch.from_numpy(questions.order[questions.cut])]
        return asked_of(users, self.history(questions, self._history), query)


def columns_of(events: Events, by_session: bool) -> EventLog:
    """All events as the model reads them; an order is taken for minutes."""
    who = events.session if by_session else events.user
    time_ms = (events.time * (1000.0 if events.timed else 60_000.0)).astype(np.int64)
    return EventLog(
        user=torch.from_numpy(who),
        item=torch.from_numpy(events.item),
        time_ms=torch.from_numpy(time_ms),
        kind=torch.from_numpy(events.kind),
        value=torch.from_numpy(events.value),
        session=torch.from_numpy(ordinals(who, events.session)),
        previous=torch.from_numpy(_previous(who, events.session, events.item)),
    )


def ordinals(who: Ints, session: Ints) -> NDArray[np.int32]:
    """[E] which of its owner's sessions each event is in, from 1; a session that is come back to counts anew."""
    order = np.argsort(who, kind="stable")
    owner, named = who[order], session[order]
    first = np.r_[True, owner[1:] != owner[:-1]]
    starts = (first | np.r_[True, named[1:] != named[:-1]]).cumsum()
    ordinal = np.empty(len(who), np.int32)
    ordinal[order] = starts - np.maximum.accumulate(np.where(first, starts, 0)) + 1
    return ordinal


def _previous(who: Ints, session: Ints, item: Ints) -> Ints:
    """[E] the item before each event in its session, -1 at a start."""
    order = np.argsort(who, kind="stable")
    owner, named, items = who[order], session[order], item[order]
    goes_on = (owner[1:] == owner[:-1]) & (named[1:] == named[:-1])
    previous = np.full(len(who), -1)
    previous[order[1:]] = np.where(goes_on, items[:-1], -1)
    return previous


def _neighbors(log: EventLog, at: Tensor, known: Tensor) -> Neighbors:
    """[B, n] events at positions `at`, where `known`."""
    return Neighbors(
        torch.where(known, log.item[at], -1),
        torch.where(known, log.time_ms[at], 0),
        torch.where(known, log.kind[at], 0),
        torch.where(known, log.value[at], 0.0),
        torch.where(known, log.session[at], 0),
    )
