"""Work beside its guards: what may end it early."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def supervise(work: Coroutine[Any, Any, None], stop: asyncio.Event, *guards: Coroutine[Any, Any, None]) -> bool:
    """Runs `work` until it is done, `stop` is set or a guard fails; whatever is left is cancelled and awaited.

    Returns:
        True where the work is done, False where `stop` came first.

    Raises:
        Exception: what a guard raised, or else the work.
    """
    worker = asyncio.create_task(work)
    guarding = [asyncio.create_task(guard) for guard in guards]
    tasks: list[asyncio.Task[Any]] = [*guarding, worker, asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if guarding and worker.done() and worker.exception():
            # A guard may be about to say why.
            await asyncio.wait(guarding, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        for task in (*guarding, worker):
            if task.done():
                task.result()
        return worker.done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
