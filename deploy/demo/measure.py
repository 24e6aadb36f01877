"""What the demo measures: how fresh the pushed lists are, and how often they hold what is bought next.

Everything is counted in the order of the calls, which is the order in which one event loop sent and received.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ousel import Cause, RecommendationList

_KEPT_SAMPLES = 100_000


@dataclass(eq=False)
class SentEvent:
    """An event on its way: its place in the log is known once the log has answered."""

    user_id: str
    sent_at: float  # seconds, as all times here
    partition: int | None = None
    offset: int = -1


@dataclass(frozen=True)
class Freshness:
    """Milliseconds from sending an event to receiving the first list that reflects it.

    Attributes:
        superseded: how many of the samples share their list with a newer event of the same user.
        unchanged: events left out because they changed no list: the next one came for another reason.
    """

    p50_ms: float | None
    p99_ms: float | None
    samples: int
    superseded: int
    unchanged: int


@dataclass
class HitRate:
    """How many events found their item in the list that stood before them.

    Attributes:
        unmeasured: events of a followed user before the first list; they count for neither.
    """

    events: int = 0
    ousel_hits: int = 0
    popularity_hits: int = 0
    unmeasured: int = 0

    @property
    def ousel(self) -> float:
        return self.ousel_hits / max(1, self.events)

    @property
    def popularity(self) -> float:
        return self.popularity_hits / max(1, self.events)


@dataclass
class _User:
    list: RecommendationList | None = None
    unreflected: deque[SentEvent] = field(default_factory=deque)  # oldest first
    # Lists that came before the log's answer to an event that they may reflect: cause, partition -> offset, time.
    unmatched: deque[tuple[Cause, dict[int, int], float]] = field(default_factory=deque)


class Measurement:
    """Follows some users: what was pushed to them, what they did.

    Args:
        user_ids: those who are followed; events of others are none of its business.
        k: length of the lists that count.
    """

    def __init__(self, user_ids: Collection[str], k: int = 20) -> None:
        self.k = k
        self.hits = HitRate()
        self._users = {user_id: _User() for user_id in user_ids}
        self._samples_ms: deque[float] = deque(maxlen=_KEPT_SAMPLES)
        self._samples = 0
        self._superseded = 0
        self._unchanged = 0

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._users

    def latest(self, user_id: str) -> RecommendationList | None:
        """The last list received for a followed user."""
        return self._users[user_id].list

    @property
    def without_list(self) -> int:
        """Followed users who have received nothing yet."""
        return sum(user.list is None for user in self._users.values())

    def sent(self, user_id: str, item_id: str, popular: Sequence[str], now: float) -> SentEvent:
        """An event of a followed user is being sent: scores the list that stands, and waits for one that reflects it.

        Args:
            popular: the floor's list for the same moment.
        """
        user = self._users[user_id]
        if user.list is None:
            self.hits.unmeasured += 1
        else:
            self.hits.events += 1
            self.hits.ousel_hits += any(item.item_id == item_id for item in user.list.items[: self.k])
            self.hits.popularity_hits += item_id in popular[: self.k]
        event = SentEvent(user_id, now)
        user.unreflected.append(event)
        return event

    def acked(self, event: SentEvent, partition: int, offset: int) -> None:
        """The log has the event at this place."""
        event.partition, event.offset = partition, offset
        self._match(self._users[event.user_id])

    def received(self, user_id: str, ranked: RecommendationList, cause: Cause, now: float) -> None:
        """A list came on the stream of a followed user."""
        user = self._users[user_id]
        user.list = ranked
        if user.unreflected:
            user.unmatched.append((cause, {p.partition: p.offset for p in ranked.reflects}, now))
            self._match(user)

    def freshness(self, last: int = _KEPT_SAMPLES) -> Freshness:
        """Over the newest `last` samples."""
        ordered = sorted(list(self._samples_ms)[-last:])

        def percentile(share: float) -> float | None:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

        return Freshness(percentile(0.5), percentile(0.99), self._samples, self._superseded, self._unchanged)

    def _match(self, user: _User) -> None:
        """Gives each list the events that it is the first to reflect, once the places of all before it are known."""
        while user.unmatched:
            cause, reflects, at = user.unmatched[0]
            candidates = [event for event in user.unreflected if event.sent_at <= at]
            if any(event.partition is None for event in candidates):
                return
            user.unmatched.popleft()
            covered = [e for e in candidates if e.partition is not None and e.offset <= reflects.get(e.partition, -1)]
            if not covered:
                continue
            for event in covered:
                user.unreflected.remove(event)
            if cause is Cause.EVENTS:
                self._samples_ms.extend((at - event.sent_at) * 1000 for event in covered)
                self._samples += len(covered)
                self._superseded += len(covered) - 1
            else:
                # An event of the user is answered before anything else, so its own list was the same as before.
                self._unchanged += len(covered)
