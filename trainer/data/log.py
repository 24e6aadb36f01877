"""A log of events as columns, and the questions that a protocol asks of it.

Shapes: E events, N items, Q questions, B of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Events in log order: by time, and where that is equal in the order of the file.

    Attributes:
        user: [E] number of the user, or of the anonymous session where the file names no user.
        session: [E] number of the session; where the file names none, of the user.
        item: [E] number of the item.
        time: [E] float64 in seconds, or only an order; see `timed`.
        kind: [E] number of the kind.
        value: [E] float32, 1 where the file has none.
        test: [E] whether the file's own split says test; None where it has none.
        items: N ids by number. Catalog items without an event come last.
        users, sessions, kinds: ids by number.
        timed: whether `time` is in seconds since 1970, not a mere order.
        names_sessions: whether the file names any session.
    """

    user: Ints
    session: Ints
    item: Ints
    time: NDArray[np.float64]
    kind: Ints
    value: NDArray[np.float32]
    test: NDArray[np.bool_] | None
    items: Sequence[str]
    users: Sequence[str]
    sessions: Sequence[str]
    kinds: Sequence[str]
    timed: bool
    names_sessions: bool = True

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class Questions:
    """What comes next, asked Q times; the answer is one event, or those of a basket.

    Attributes:
        order: [E] positions in the log, sorted by who asks (a user or a session) and then by log order.
        first, cut, end: [Q] places in `order`: `order[first:cut]` is the history of who asks, oldest first, and
            `order[cut:end]` are the targets. Every event of the history lies before every target in the log.
    """

    order: Ints
    first: Ints
    cut: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.cut)

    def select(self, index: Ints | slice) -> Questions:
        return Questions(self.order, self.first[index], self.cut[index], self.end[index])

    def history(self, at: int) -> Ints:
        """Positions of the events known to question `at`, oldest first."""
        return self.order[self.first[at] : self.cut[at]]

    def targets(self, at: int) -> Ints:
        """Positions of the events that question `at` is about."""
        return self.order[self.cut[at] : self.end[at]]


@dataclass(frozen=True)
class Split:
    """What may be learned from, and what is asked.

    Attributes:
        train: positions in the log, rising.
        questions: in the log order of their first targets.
        filter_seen: whether items of the history are no answers.
        digest: SHA-256 of all that makes the split, so that two runs can be told to have had the same.
    """

    protocol: str
    train: Ints
    questions: Questions
    filter_seen: bool
    digest: str


class Fitted(Protocol):
    """Something that is judged: what it learns, and what it sees of the log as that goes on."""

    name: str

    def fit(self, events: Events, train: Ints) -> None:
        """Learns from the events at positions `train`, rising, and from nothing else of `events`."""

    def observe(self, positions: Ints) -> None:
        """Takes in later events, in log order, without learning anew. A scorer may ignore them."""


class Scorer(Fitted, Protocol):
    """Something that ranks all items."""

    def score(self, questions: Questions) -> NDArray[np.float32]:
        """[B, N] the higher the better, -inf for an item that is no answer; reads histories, never targets."""


@runtime_checkable
class Lister(Fitted, Protocol):
    """Something that makes lists, as a server does."""

    def lists(
        self, questions: Questions, k: int, *, filter_seen: bool, among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int32]:
        """[B, k] items best first, -1 behind the last; reads histories, never targets.

        Args:
            filter_seen: whether items of the history are left out.
            among: [N] the items that lists may hold; all where it is not given.
        """
