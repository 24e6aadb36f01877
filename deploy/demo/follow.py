"""One stream per followed household, read as fast as lists come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from ousel import AsyncClient, OuselError, StreamEnded

from deploy.demo.measure import Measurement

_CHECK_S = 0.05
_REOPEN_S = 1.0


class Followers:
    """Open streams that hand every list to the measurement.

    Attributes:
        failed: streams that broke; each is opened again after a second.
    """

    def __init__(self, client: AsyncClient, measurement: Measurement) -> None:
        self._client = client
        self._measurement = measurement
        self._tasks: list[asyncio.Task[None]] = []
        self.failed = 0

    async def open(self, user_ids: Sequence[str], timeout_s: float) -> None:
        """Opens all streams and waits until each has its first list, or for `timeout_s`."""
        self._tasks += [asyncio.create_task(self._follow(user_id), name=f"follow {user_id}") for user_id in user_ids]
        deadline = time.monotonic() + timeout_s
        while self._measurement.without_list and time.monotonic() < deadline:
            await asyncio.sleep(_CHECK_S)

    async def close(self) -> None:
        """Ends every stream. Safe to call twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _follow(self, user_id: str) -> None:
        while True:
            try:
                async with self._client.stream(user_id, k=self._measurement.k) as updates:
                    async for update in updates:
                        self._measurement.received(user_id, update.list, update.cause, time.perf_counter())
                raise StreamEnded("the engine ended the stream")
            except OuselError:
                self.failed += 1
            await asyncio.sleep(_REOPEN_S)
