"""Which partitions a fetch asks for: all that can be read, or one after another of a broker that answers with too much.

The bytes that a shortened answer has of other partitions are sent for nothing. So after such an answer the partitions
are asked for one by one, until each has had an answer that was not too long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kafka import TopicPartition


class FetchTurns:
    """Chooses, and notes what was asked for."""

    def __init__(self) -> None:
        self._shortened = 0
        self._alone = 0  # So many fetches more ask for one partition each.
        self._fetches = 0
        self._asked: dict[TopicPartition, int] = {}  # the number of the last fetch that asked for each

    def choose(self, fetchable: Sequence[TopicPartition], assigned: int, shortened: int) -> list[TopicPartition]:
        """The partitions to ask for now.

        Args:
            fetchable: those of which nothing waits to be returned.
            assigned: the number of all partitions that are read.
            shortened: how many answers were too long so far.
        """
        if shortened != self._shortened:
            self._shortened, self._alone = shortened, assigned
        if not self._alone or len(fetchable) < 2:
            return list(fetchable)
        return [min(fetchable, key=lambda partition: self._asked.get(partition, 0))]

    def ask(self, partitions: Iterable[TopicPartition]) -> None:
        """Notes that a fetch of these partitions is sent."""
        self._fetches += 1
        self._asked.update(dict.fromkeys(partitions, self._fetches))
        self._alone = max(0, self._alone - 1)
