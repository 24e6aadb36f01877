"""Recognises what a producer has sent twice: the ids of the last events, in log order."""

from __future__ import annotations

from collections.abc import Sequence

_MANY = 1024


class RecentIds:
    """The event ids of the last `size` events that were folded, and had one.

    The answer depends on the log alone: an event is a repeat if its id is among those of the `size` events before it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: list[str] = []  # a ring once it is full
        self._next = 0
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def fresh(self, ids: Sequence[str]) -> list[int] | None:
        """Notes `ids`, oldest first, "" where an event has none.

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
            elif name not in self._known:
                fresh.append(at)
                self._known.add(name)
                self._push((name,))
        return fresh

    def _add_fresh(self, ids: Sequence[str]) -> bool:
        """Notes `ids` if none of them is a repeat, as is usual; else changes nothing."""
        if len(ids) > self._size:
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
        """Takes over what `ordered` gave."""
        self._ids, self._next, self._known = list(ids), 0, set(ids)

    def _push(self, ids: Sequence[str]) -> None:
        """Appends distinct new ids, at most `size` of them, and lets go of the oldest beyond that."""
        room = min(len(ids), self._size - len(self._ids))
        self._ids.extend(ids[:room])
        rest = ids[room:]
        while rest:
            end = min(self._size, self._next + len(rest))
            part = rest[: end - self._next]
            self._known.difference_update(self._ids[self._next : end])
            self._ids[self._next : end] = part
            self._next = end % self._size
            rest = rest[len(part) :]
