"""What is asked, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.state.subjects import subject_key

DEFAULT_K = 10  # items in a list whose query names no number


class Origin(IntEnum):
    """What ordered a list; the numbers are those of the protocol."""

    MODEL = 1
    POPULARITY = 2
    COVISITATION = 3
    FREQUENCY = 4


class Source(IntEnum):
    """Where a candidate came from; the numbers are those of the protocol."""

    INDEX = 1
    HISTORY = 2
    NEIGHBOR = 3
    POPULAR = 4
    FRIEND = 5
    ENTITY = 6
    BACKFILL = 7

    __hash__ = int.__hash__  # An enum's own is written in Python, and each item of a list asks for it.


class Cause(IntEnum):
    """Why a list is made again; the numbers are those of the protocol. The most urgent comes first."""

    SUBSCRIBED = 1
    EVENTS = 2
    MODEL = 3
    CATALOG = 4


class Turn(IntEnum):
    """The order in which streams get the lists that they wait for; that of their causes, but for one of them."""

    SUBSCRIBED = 1
    EVENTS = 2
    MODEL = 3
    FORBIDDEN = 4  # by the catalog: the list shows an item that may not be listed any more
    CATALOG = 5


@dataclass(frozen=True)
class Query:
    """One list for a user, or for an anonymous session where `user_id` is empty."""

    user_id: str
    session_id: str
    k: int
    exclude_history: bool = False
    categories: tuple[str, ...] = ()
    exclude_item_ids: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return subject_key(self.user_id, self.session_id)


class RankedItem(NamedTuple):
    """One of a list; a tuple, since twenty of them are made for each."""

    item_id: str
    title: str
    score: float
    sources: tuple[Source, ...]


class Position(NamedTuple):
    """A record of one partition of the events topic."""

    topic: str
    partition: int
    offset: int

    @property
    def partition_key(self) -> tuple[str, int]:
        return self.topic, self.partition


@dataclass(frozen=True, eq=False, slots=True)
class Basis:
    """The basis of a list, as far as a change of the catalog may change the list.

    Attributes:
        query: what was asked.
        version: of the model whose order it is; 0: of popularity.
        rows: [C] int32 rows that were weighed, those that may not be listed included, behind further ones that would
            have been weighed if they could be shown; where popularity ordered, those of the list alone.
        low, high: [C] float32 cosines with `vector` between which an item may move without changing the list, see
            `margins`; `low` is nan for the items of the list.
        vector: [d] the session as the index was asked for it; None where popularity ordered.
        floor: the score that another item needs to be found by the index, or to be listed by popularity; -inf where
            there is room for any.
        scale: of popularity's scores when the list was made.
        last: row of the list's last item, -1 where it is empty.
        popular: how many of the popular items were candidates.
    """

    query: Query
    version: int
    rows: NDArray[np.int32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    vector: NDArray[np.float32] | None
    floor: float
    scale: int
    last: int
    popular: int


class Scored(NamedTuple):
    """A list as a scorer makes it, best first, and what it was made from."""

    items: tuple[RankedItem, ...]
    basis: Basis
    origin: Origin


@dataclass(frozen=True)
class Ranking:
    """A list, best first, all of it from one generation and one moment of the state.

    Attributes:
        reflects: the last record folded of each partition.
        basis: what the list was made from, to tell which changes of the catalog concern it.
    """

    items: tuple[RankedItem, ...]
    origin: Origin
    known: bool
    model_version: int
    reflects: tuple[Position, ...]
    basis: Basis | None = field(default=None, compare=False, repr=False)
