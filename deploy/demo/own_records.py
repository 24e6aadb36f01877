"""Which records of the log are the demo's own: those that a second terminal writes beside them are nobody's loss."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from typing import NamedTuple

from ousel import Status


class Seen(NamedTuple):
    """How far the engine is with what the demo has sent.

    Attributes:
        folded: live events of the demo that the engine has folded.
        elsewhere: records of others, such as an event that was tracked or a user who was forgotten.
        all_reflected: whether every live event that the log has acknowledged is among those that were read.
    """

    folded: int = 0
    elsewhere: int = 0
    all_reflected: bool = False


class OwnRecords:
    """Notes where the demo's records lie, and counts those that an engine's status says to reflect.

    Args:
        history: records that the demo wrote before its live part; the engine has read them.
    """

    def __init__(self, history: int) -> None:
        self._history = history
        self._offsets: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))  # by partition, rising

    def acked(self, partition: int, offset: int) -> None:
        """Notes a live event at its place in the log."""
        offsets = self._offsets[partition]
        offsets.insert(bisect_right(offsets, offset), offset)

    def seen(self, status: Status) -> Seen:
        """What a status says of them.

        A record that was read and is no folded event may be one of the others, which need not be events. Where there
        are more of such records than others wrote, events of the demo are missing.
        """
        reflected = {position.partition: position.offset for position in status.reflects}
        read = sum(bisect_right(offsets, reflected.get(at, -1)) for at, offsets in self._offsets.items())
        records = sum(offset + 1 for offset in reflected.values())
        elsewhere = max(0, records - self._history - read)
        missing = max(0, records - status.events_folded - elsewhere)
        return Seen(read - missing, elsewhere, read == sum(map(len, self._offsets.values())))
