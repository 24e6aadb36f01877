"""Recognises what a producer has sent twice: the ids of the last events, in log order.

An id belongs to the subject of its event. Two producers that both count from 0 for their users lose nothing then, and
whoever guesses an id cannot have another user's event taken for a repeat.

Shapes: E events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MANY = 1024
_OF = "\x01"  # No id has control characters, so that no key can be made up by an id.


def repeat_keys(ids: Sequence[str], whose: NDArray[np.int64]) -> list[str]:
    """[E] what two records of one event have in common: its id and its subject; "" where the event has no id.

    Args:
        whose: [E, 2] digests of the subjects (`subjects_of`). Subjects enter by their digest, so that nothing here
            names a user who is forgotten.
    """
    if not any(ids):
        return [""] * len(ids)
    owners = whose.tobytes().hex(",", whose.itemsize * whose.shape[1]).split(",")
    keys = [*map(_OF.join, zip(ids, owners, strict=True))]
    return [key if name else "" for key, name in zip(keys, ids, strict=True)] if "" in ids else keys


class RecentIds:
    """The keys (see `repeat_keys`) of the last `size` events that were folded, and had an id.

    The answer depends on the log alone: an event is a repeat if its key is among those of the `size` events before it.

    Snapshots from before ids belonged to subjects hold bare ids. Until the window has passed them, such an id is
    recognised under any subject, as it was then: repeats of events that are counted already are more likely than two
    subjects with the same id.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: list[str] = []  # a ring once it is full
        self._next = 0
        self._known: set[str] = set()
        self._bare: set[str] = set()  # the part of `_known` that names no subject

    def __len__(self) -> int:
        return len(self._ids)

    def fresh(self, ids: Sequence[str]) -> list[int] | None:
        """Notes the keys `ids`, oldest first, "" where an event has no id.

        Returns:
            Positions of those that are no repeats; None where all are fresh.
        """
        if self._size == 0:
            return None
        named = [name for name in ids if name] if "" in ids else ids
        if self._add_fresh(named):
            return None
        fresh = []
        for at, name in enumerate(ids):
            if not name:
                fresh.append(at)
            elif name not in self._known and name.partition(_OF)[0] not in self._bare:
                fresh.append(at)
                self._known.add(name)
                self._push((name,))
        return fresh

    def _add_fresh(self, ids: Sequence[str]) -> bool:
        """Notes `ids` if none of them is a repeat, as is usual; else changes nothing."""
        if len(ids) > self._size or self._bare:
            return False
        if len(ids) < _MANY:
            if not self._known.isdisjoint(ids) or len(set(ids)) < len(ids):
                return False
            self._known.update(ids)
        else:
            # Adding them all and counting is one pass in place of three; a repeat costs the whole set then.
            before = len(self._known)
            self._known.update(ids)
            if len(self._known) < before + len(ids):
                self._known = set(self._ids)
                return False
        self._push(ids)
        return True

    def ordered(self) -> list[str]:
        """All that are remembered, oldest first."""
        return self._ids[self._next :] + self._ids[: self._next]

    def restore(self, ids: Sequence[str]) -> None:
        """Takes over what `ordered` gave, or the end of it where the window was larger."""
        ids = ids[max(0, len(ids) - self._size) :]
        self._ids, self._next, self._known = list(ids), 0, set(ids)
        self._bare = {name for name in ids if _OF not in name}

    def _push(self, ids: Sequence[str]) -> None:
        """Appends distinct new ids, at most `size` of them, and lets go of the oldest beyond that."""
        room = min(len(ids), self._size - len(self._ids))
        self._ids.extend(ids[:room])
        rest = ids[room:]
        while rest:
            end = min(self._size, self._next + len(rest))
            part = rest[: end - self._next]
            gone = self._ids[self._next : end]
            self._known.difference_update(gone)
            self._bare.difference_update(gone)
            self._ids[self._next : end] = part
            self._next = end % self._size
            rest = rest[len(part) :]
