"""Copies of the state that the engine's thread makes between its steps, one piece at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class Copy(Protocol):
    """Something made in pieces."""

    def step(self) -> bool:
        """Makes one piece; True once all are made."""


C = TypeVar("C", bound=Copy)


class Copies:
    """Copies wanted and being made, one after another: a table can be in one copy at a time."""

    def __init__(self) -> None:
        self._wanted: deque[tuple[Callable[[], Copy], Callable[[Any], None]]] = deque()
        self._current: tuple[Copy, Callable[[Any], None]] | None = None

    def __len__(self) -> int:
        """Copies not made yet."""
        return len(self._wanted) + (self._current is not None)

    def want(self, begin: Callable[[], C], done: Callable[[C], None]) -> None:
        """Has a copy made: `begin` is called when its turn has come, and is its moment; `done` once it is whole."""
        self._wanted.append((begin, done))

    def step(self) -> None:
        """Makes one piece of one copy, if any is wanted."""
        if self._current is None and self._wanted:
            begin, done = self._wanted.popleft()
            self._current = begin(), done
        if self._current is not None:
            copy, done = self._current
            if copy.step():
                self._current = None
                done(copy)

    def finish(self) -> None:
        """Makes all that is wanted, at once."""
        while len(self):
            self.step()
