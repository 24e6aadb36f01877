"""Asks each call who makes it, and turns away whoever may not: before anything of the call is read.

A call that is open for long is asked again whenever its token may have ceased to count.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import Counter

from engine import metrics
from engine.limited_log import LimitedLog
from engine.security.caller import Caller, set_caller
from engine.security.errors import REFUSALS, RoleMissing, Unauthenticated
from engine.security.limits import CHUNKED, ClientLimits, client_key
from engine.security.roles import ACCESS, Allowed
from engine.security.token_file import POLL_S, TokenFile
from engine.security.tokens import Token

_log = logging.getLogger(__name__)
_limited = LimitedLog(_log)

_HEADER = "authorization"

Behavior = Callable[[Any, Any], Awaitable[Any]]


class Guard:
    """For one event loop.

    Args:
        tokens: the tokens that count; None where none is asked for.
        limits: of each client.
    """

    def __init__(self, tokens: TokenFile | None, limits: ClientLimits) -> None:
        self._tokens = tokens
        self._limits = limits
        self._lasting: dict[Caller, None] = {}  # the calls that `refresh` looks at
        self._next_expiry_s = 0.0

    def guarded(self, method: str, inner: Behavior, *, lasting: bool) -> Behavior:
        """A method's behavior for those who may call it; for all others it raises what they are refused with.

        Args:
            method: its full name, with the slash before it, as gRPC has it.
            lasting: whether a call may be open for long, so that its token may cease to count meanwhile.
        """
        allowed = ACCESS.get(method)
        counts = _Refusals("unknown" if allowed is None else allowed[0].value if allowed else "none")

        async def behavior(request: Any, context: Any) -> Any:
            client = None
            try:
                caller = self._caller(method, allowed, context)
                key = client_key(caller.token, context.peer())
                if key is not None:
                    client = self._limits.enter(key, context.invocation_metadata(), stream=lasting)
                caller.client = client
                set_caller(caller)
                if lasting and caller.token is not None:
                    return await self._while_it_counts(caller, inner(request, context))
                return await inner(request, context)
            except REFUSALS as refusal:
                counts[refusal.reason].inc()
                raise
            finally:
                if client is not None:
                    self._limits.leave(client, stream=lasting)

        return behavior

    def longest(self, method: str) -> int:
        """How many bytes a message of a method may have, whoever sends it; longer ones are for `check_message`."""
        return sys.maxsize if method in CHUNKED else self._limits.max_message_bytes

    def _caller(self, method: str, allowed: Allowed | None, context: Any) -> Caller:
        """Who makes a call.

        Raises:
            Unauthenticated: it needs a token, and has none that counts.
            RoleMissing: its token has no role that it needs, or the table of roles does not have the call.
        """
        if allowed is None:
            raise RoleMissing(method, ())
        if self._tokens is None or not allowed:
            return Caller()
        try:
            token = self._tokens.presented([value for key, value in context.invocation_metadata() if key == _HEADER])
        except Unauthenticated as refusal:
            _limited.warning(
                refusal.reason, "%s was refused to %s, which has no valid token (%s)", method, context.peer(),
                refusal.reason,
            )  # fmt: skip
            raise
        _check_role(method, token, allowed)
        return Caller(token, method, allowed)

    async def _while_it_counts(self, caller: Caller, call: Awaitable[Any]) -> Any:
        """Makes a call that `refresh` may end."""
        task = asyncio.current_task()
        caller.runs_in(task)
        self._lasting[caller] = None
        try:
            return await call
        except asyncio.CancelledError:
            if caller.ended is None:
                raise
            assert task is not None
            task.uncancel()
            raise caller.ended from None
        finally:
            del self._lasting[caller]

    async def follow(self) -> None:
        """Follows the tokens file for as long as it runs; without one, it returns at once."""
        while self._tokens is not None:
            await asyncio.sleep(POLL_S)
            changed = await asyncio.to_thread(self._tokens.poll)
            if changed or time.time() >= self._next_expiry_s:
                self.refresh()

    def refresh(self) -> None:
        """Ends the open calls whose tokens have expired, were taken out of the file, or have lost the role."""
        assert self._tokens is not None
        tokens, now_s = self._tokens.in_force, time.time()
        self._next_expiry_s = tokens.next_expiry_s(now_s)
        for caller in list(self._lasting):
            assert caller.token is not None
            token = tokens.with_digest(caller.token.digest)
            try:
                if token is None:
                    raise Unauthenticated("revoked")
                if token.expires_s <= now_s:
                    raise Unauthenticated("expired")
                _check_role(caller.method, token, caller.allowed)
                caller.token = token
            except REFUSALS as refusal:
                caller.end(refusal)


def _check_role(method: str, token: Token, allowed: Allowed) -> None:
    if token.roles.isdisjoint(allowed):
        raise RoleMissing(method.removeprefix("/ousel.v1."), allowed)


class _Refusals(dict[str, Counter]):
    """The counter of the refusals of calls that need one role, by their reason."""

    def __init__(self, role: str) -> None:
        self._role = role

    def __missing__(self, reason: str) -> Counter:
        self[reason] = found = metrics.CALLS_REFUSED.labels(reason, self._role)
        return found
