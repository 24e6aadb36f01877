"""Who makes a call, for as long as the call lasts. Servicers ask for it where one call means more than one thing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from engine.security.errors import RoleMissing
from engine.security.limits import Client
from engine.security.roles import Allowed, Role
from engine.security.tokens import Token


class Caller:
    """The caller of one call.

    Attributes:
        token: as the file has it now; None where no token is asked for.
        method: the full name of what is called, and `allowed` the roles that it needs one of.
        client: whose limits the call counts for; None where it has none.
        ended: why the call is over, where its token counts no more.
    """

    def __init__(self, token: Token | None = None, method: str = "", allowed: Allowed = ()) -> None:
        self.token = token
        self.method = method
        self.allowed = allowed
        self.client: Client | None = None
        self.ended: Exception | None = None
        self._end: Callable[[Exception], object] = self._cancel
        self._task: asyncio.Task[Any] | None = None

    def has(self, role: Role) -> bool:
        """Whether this caller may do what needs a role."""
        return self.token is None or role in self.token.roles

    def need(self, role: Role, what: str) -> None:
        """Raises RoleMissing where the caller may not do `what`, which needs a role."""
        if not self.has(role):
            raise RoleMissing(what, (role,))

    async def take_turn(self, count: int = 1) -> None:
        """Waits until the caller may have so many messages or queries of an open call taken: each counts as a call."""
        if self.client is not None and (wait_s := self.client.owes_s(count)) > 0:
            await asyncio.sleep(wait_s)

    def check_message(self, size_bytes: int) -> None:
        """Raises TooLarge for a message that is longer than the caller may send."""
        if self.client is not None:
            self.client.limits.check_message(size_bytes)

    def runs_in(self, task: asyncio.Task[Any] | None) -> None:
        """Names the task that `end` cancels unless `ends_by` has another way."""
        self._task = task

    def ends_by(self, end: Callable[[Exception], object]) -> None:
        """Has a call end in another way than by the cancellation of its task, which must not happen within a write."""
        self._end = end
        if self.ended is not None:
            end(self.ended)

    def end(self, why: Exception) -> None:
        """Ends the call; only the first reason counts."""
        if self.ended is None:
            self.ended = why
            self._end(why)

    def _cancel(self, _: Exception) -> None:
        if self._task is not None:
            self._task.cancel()


_current: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """The caller of the call that is being handled; outside of a call, one who may do everything."""
    return _current.get(None) or Caller()


def set_caller(caller: Caller) -> None:
    """Says who makes the call that the running task, and those it begins, handle."""
    _current.set(caller)
