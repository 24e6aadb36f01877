"""Open streams: the engine's thread marks them, makes their lists and drops each into its one slot.

Latest wins: a list that its reader has not taken is replaced by the next one, so a slow reader costs the memory of one
list and nobody else anything. One lock guards everything, and is never held while calling out.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass

from engine import metrics
from engine.pipeline import Due, Overloaded
from engine.ranking.catalog_change import CatalogChange
from engine.ranking.list_bases import ListBases, Place
from engine.ranking.query import Cause, Query, Ranking, Turn
from engine.serving.errors import SHUTTING, ShuttingDown
from engine.tracing.spans import Link

_MAX_FOLDS = 8  # traced batches that one list is known to follow from


class Subscription:
    """One stream's query and slot. Made by `Subscriptions.open`; used in the event loop that opened it."""

    def __init__(self, owner: Subscriptions, query: Query, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._changed = asyncio.Event()
        # The rest belongs to `owner` and its lock.
        self.query = query
        self.ended: Exception | None = None  # what `next` raises once this is closed
        self.causes: set[Cause] = set()  # why a list is to be made; empty: none is
        self.turn: Turn | None = None  # the queue that it waits in for that list
        self.pending: tuple[Ranking, Set[Cause]] | None = None  # made, not taken
        self.taken: Ranking | None = None
        self.place: Place | None = None  # of what the newest list was made from, whether or not the list was news
        self.folded: tuple[Link, ...] = ()  # traced batches since the list that was taken
        self.folds: tuple[Link, ...] = ()  # those of the list that was taken

    async def next(self) -> tuple[Ranking, Cause]:
        """Waits for a list that the reader has not had, and why it was made. One reader at a time.

        Raises:
            Exception: what `close` was given. ShuttingDown where the engine is stopping.
        """
        while True:
            if update := self._owner.take(self, self._changed):
                return update
            await self._changed.wait()

    def replace(self, query: Query) -> None:
        """Asks for another list from now on; what was made for the old query is dropped."""
        self._owner.replace(self, query)

    def close(self, reason: Exception) -> None:
        """Gives the place free, and has `next` raise `reason`. Safe to call twice: the first reason stays."""
        self._owner.close(self, reason)

    def notify(self) -> None:
        """Has `next` look again, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:  # the loop is closed, and with it every reader
            pass


@dataclass(eq=False, slots=True)
class DueList:
    """A stream that waits for a list, with the query that the list must answer."""

    subscription: Subscription
    query: Query
    cause: Cause
    causes: Set[Cause]


class Subscriptions:
    """All open streams; the engine's `Audience`.

    Args:
        limit: open streams; one more is refused.
        wake: makes the engine's thread come for what is due.
    """

    def __init__(self, limit: int, wake: Callable[[], None]) -> None:
        self._limit = limit
        self._wake = wake
        self._lock = threading.Lock()
        self._shut = False
        # Dicts as ordered sets.
        self._all: dict[Subscription, None] = {}
        self._by_subject: dict[str, dict[Subscription, None]] = {}
        self._bases = ListBases()  # of the engine's thread
        self._based: dict[Place, Subscription] = {}  # whose the bases are
        self._left: list[Place] = []  # of bases that are nobody's any more
        self._queues: dict[Turn, OrderedDict[Subscription, None]] = {turn: OrderedDict() for turn in sorted(Turn)}

    @property
    def count(self) -> int:
        return len(self._all)

    # -- the event loop -----------------------------------------------------------------------------------------------

    def open(self, query: Query, loop: asyncio.AbstractEventLoop) -> Subscription:
        """Subscribes; the first list is due at once.

        Raises:
            Overloaded: too many streams are open.
            ShuttingDown: after `shut`.
        """
        with self._lock:
            if self._shut:
                raise ShuttingDown(SHUTTING)
            if len(self._all) >= self._limit:
                raise Overloaded(f"at most {self._limit} streams may be open, try again later")
            subscription = Subscription(self, query, loop)
            self._all[subscription] = None
            self._by_subject.setdefault(query.subject, {})[subscription] = None
            self._add(subscription, Cause.SUBSCRIBED)
            metrics.STREAMS.set(len(self._all))
        self._wake()
        return subscription

    def replace(self, subscription: Subscription, query: Query) -> None:
        """See `Subscription.replace`."""
        with self._lock:
            if subscription.ended:
                return
            self._forget(subscription)
            subscription.query = query
            subscription.pending = subscription.taken = None
            self._leave(subscription)
            self._by_subject.setdefault(query.subject, {})[subscription] = None
            self._add(subscription, Cause.SUBSCRIBED)
        self._wake()

    def take(self, subscription: Subscription, changed: asyncio.Event) -> tuple[Ranking, Cause] | None:
        """Empties the slot, or clears `changed` where there is nothing yet. See `Subscription.next`."""
        with self._lock:
            if subscription.ended:
                raise subscription.ended
            if subscription.pending is None:
                changed.clear()
                return None
            ranking, causes = subscription.pending
            subscription.folds, subscription.folded = subscription.folded, ()
            subscription.pending, subscription.taken = None, ranking
        cause = min(causes)
        metrics.LISTS_PUSHED.labels(cause.name.lower()).inc()
        return ranking, cause

    def close(self, subscription: Subscription, reason: Exception) -> None:
        """See `Subscription.close`."""
        with self._lock:
            if subscription.ended:
                return
            subscription.ended = reason
            subscription.pending = subscription.taken = None
            self._leave(subscription)
            self._forget(subscription)
            del self._all[subscription]
            metrics.STREAMS.set(len(self._all))
        subscription.notify()

    def shut(self) -> None:
        """Closes every subscription and opens no more."""
        with self._lock:
            self._shut = True
            open_now = list(self._all)
        for subscription in open_now:
            self.close(subscription, ShuttingDown(SHUTTING))

    # -- the engine's thread ------------------------------------------------------------------------------------------

    def mark(self, subjects: Collection[str], *, model: bool) -> None:
        """`subjects` have new events; the model has changed for all."""
        with self._lock:
            for subject in subjects:
                for subscription in self._by_subject.get(subject, ()):
                    self._add(subscription, Cause.EVENTS)
            for subscription in self._all if model else ():
                self._add(subscription, Cause.MODEL)

    def trace(self, subjects: Collection[str], fold: Link) -> None:
        """`subjects` have new events that are traced; their next list follows from this batch."""
        with self._lock:
            for subject in subjects:
                for subscription in self._by_subject.get(subject, ()):
                    subscription.folded = (*subscription.folded[1 - _MAX_FOLDS :], fold)

    def mark_catalog(self, change: CatalogChange) -> None:
        """The catalog has changed, for the streams whose lists that concerns."""
        with self._lock:
            self._drop_left()
        concerned, urgent = change.concerns(self._bases), change.forbids(self._bases)
        with self._lock:
            for turn, places in ((Turn.FORBIDDEN, urgent), (Turn.CATALOG, concerned)):
                for place in places:
                    # A stream may have ended meanwhile, or ask for another list.
                    subscription = self._based.get(place)
                    if subscription is not None:
                        self._add(subscription, Cause.CATALOG, turn)
            self._count_stale()

    def due(self, limit: int, last: Turn = Turn.CATALOG) -> list[DueList]:
        """Takes up to `limit` waiting streams: the most urgent first, and of one turn the longest waiting.

        Args:
            last: streams whose turn comes after this one go on waiting.
        """
        found: list[DueList] = []
        with self._lock:
            queues = [queue for turn, queue in self._queues.items() if turn <= last]
            for queue in queues:
                while queue and len(found) < limit:
                    subscription, _ = queue.popitem(last=False)
                    causes, subscription.causes, subscription.turn = subscription.causes, set(), None
                    found.append(DueList(subscription, subscription.query, min(causes), causes))
            left = any(queues)
            self._count_stale()
        if left:  # or they would wait for the next record
            self._wake()
        return found

    def deliver(self, due: Due, ranking: Ranking) -> None:
        """Puts a list into its slot, if it tells the reader anything new."""
        assert isinstance(due, DueList)
        subscription = due.subscription
        with self._lock:
            # A query that was replaced meanwhile is due again; its old list would be wrong.
            if subscription.ended or subscription.query is not due.query:
                return
            self._drop_left()
            if ranking.basis is not None:
                if subscription.place is not None:
                    del self._based[subscription.place]
                subscription.place = self._bases.put(ranking.basis, subscription.place)
                self._based[subscription.place] = subscription
            waiting = subscription.pending
            causes = due.causes | waiting[1] if waiting else due.causes
            news = _is_news(ranking, subscription.taken, causes)
            subscription.pending = (ranking, causes) if news else None
            if not news:
                subscription.folded = ()  # These batches have changed nothing that is sent.
        if waiting:
            metrics.LISTS_REPLACED.inc()
        elif news:
            subscription.notify()

    # -- with the lock held -------------------------------------------------------------------------------------------

    def _add(self, subscription: Subscription, cause: Cause, turn: Turn | None = None) -> None:
        """Makes a list due, in the turn of its cause unless another is given."""
        turn = turn or Turn[cause.name]
        if subscription.turn is None or turn < subscription.turn:
            if subscription.turn is not None:
                del self._queues[subscription.turn][subscription]
            self._queues[turn][subscription] = None
            subscription.turn = turn
        subscription.causes.add(cause)

    def _leave(self, subscription: Subscription) -> None:
        """Forgets the basis of a stream's list, which no change of the catalog is to be compared with any more."""
        if subscription.place is not None:
            del self._based[subscription.place]
            self._left.append(subscription.place)
            subscription.place = None

    def _drop_left(self) -> None:
        """In the engine's thread, which may be reading the bases while streams end."""
        for place in self._left:
            self._bases.drop(place)
        self._left.clear()

    def _count_stale(self) -> None:
        metrics.STREAMS_STALE.set(len(self._queues[Turn.FORBIDDEN]) + len(self._queues[Turn.CATALOG]))

    def _forget(self, subscription: Subscription) -> None:
        """Takes it out of its queue and its subject."""
        if subscription.turn is not None:
            del self._queues[subscription.turn][subscription]
            subscription.causes, subscription.turn = set(), None
        peers = self._by_subject[subscription.query.subject]
        del peers[subscription]
        if not peers:
            del self._by_subject[subscription.query.subject]


def _is_news(ranking: Ranking, taken: Ranking | None, causes: Set[Cause]) -> bool:
    """Whether a list made for these causes is worth sending to a reader who has `taken`."""
    if taken is None or Cause.SUBSCRIBED in causes or Cause.MODEL in causes:
        return True
    if Cause.EVENTS in causes and (ranking.origin != taken.origin or _scores(ranking) != _scores(taken)):
        return True
    return Cause.CATALOG in causes and _titles(ranking) != _titles(taken)


def _scores(ranking: Ranking) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in ranking.items]


def _titles(ranking: Ranking) -> list[tuple[str, str]]:
    return [(item.item_id, item.title) for item in ranking.items]
