"""Reads the first message of each call, within a time: gRPC itself waits for it without end.

A client may open a call and send its message by halves, or not at all. gRPC hands a unary call to its handler once the
message is whole, so nothing of ours would run, and the call would stay for as long as the client likes. Therefore every
call is registered as a streaming one, which is the same on the wire, and its message is read here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engine import metrics
from engine.serving.errors import InvalidRequest
from engine.serving.requests import read_request
from engine.waiting import Overloaded


class FirstMessages:
    """Calls that have not brought their first message yet. For one event loop.

    A timer of its own for each call would cost as much as reading the message. One timer looks after all of them: those
    that came first are late first.

    Args:
        limit: such calls at a time; one more is refused.
        silence_s: how long a call may take.
    """

    def __init__(self, limit: int, silence_s: float) -> None:
        self._limit, self._silence_s = limit, silence_s
        self._since_s: dict[asyncio.Task[Any], float] = {}  # the longest waiting first
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        metrics.CALLS_SILENT.set_function(lambda: len(self._since_s))

    async def read(self, context: Any) -> Any:
        """The message; None where the client has ended its side without one.

        Raises:
            Overloaded: too many calls have not brought theirs.
            TimeoutError: it did not come in time.
            InvalidRequest: it is not a valid message.
        """
        if len(self._since_s) >= self._limit:
            raise Overloaded(f"at most {self._limit} calls may have sent no request yet, try again later")
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._since_s[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._silence_s, self._end_late)
        try:
            message = await read_request(context)
            if message is None:
                await asyncio.sleep(0)  # a client that has left ends its side, too; gRPC is about to cancel the task
            return message
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise TimeoutError(f"the first message did not come within {self._silence_s:g} s") from None
        finally:
            del self._since_s[task]
            self._late.discard(task)

    async def request(self, context: Any) -> Any:
        """The one message of a unary call; otherwise as `read`."""
        message = await self.read(context)
        if message is None:
            raise InvalidRequest("the call must bring a request, got none")
        return message

    def _end_late(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for task, since_s in self._since_s.items():
            if since_s + self._silence_s > loop.time():
                self._timer = loop.call_at(since_s + self._silence_s, self._end_late)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()
