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
_Wanted = tuple[Callable[[], Copy], Callable[[Any], object], Callable[[BaseException], object]]


class Copies:
    """Copies wanted and being made, one after another: a table can be in one copy at a time."""

    def __init__(self) -> None:
        self._wanted: deque[_Wanted] = deque()
        self._current: _Wanted | None = None
        self._copy: Copy | None = None  # of the current one, once it has begun

    def __len__(self) -> int:
        """Copies not made yet."""
        return len(self._wanted) + (self._current is not None)

    def want(
        self,
        begin: Callable[[], C],
        done: Callable[[C], object],
        failed: Callable[[BaseException], object] = lambda error: None,
    ) -> None:
        """Has a copy made: `begin` is called when its turn has come, and is its moment; `done` once it is whole.

        Args:
            failed: hears of an error instead, before it ends the engine, so that nobody waits for ever.
        """
        self._wanted.append((begin, done, failed))

    def step(self) -> None:
        """Makes one piece of one copy, if any is wanted."""
        if self._current is None and self._wanted:
            self._current = self._wanted.popleft()
        if self._current is None:
            return
        begin, done, failed = self._current
        try:
            self._copy = self._copy or begin()
            if not self._copy.step():
                return
        except BaseException as error:
            self._current = self._copy = None
            failed(error)
            raise
        copy, self._current, self._copy = self._copy, None, None
        done(copy)

    def drop(self, error: BaseException) -> None:
        """Makes no more of what is wanted; whoever waits hears of `error`."""
        wanted = [*([self._current] if self._current else []), *self._wanted]
        self._wanted.clear()
        self._current = self._copy = None
        for _, _, failed in wanted:
            failed(error)

    def finish(self) -> None:
        """Makes all that is wanted, at once."""
        while len(self):
            self.step()
