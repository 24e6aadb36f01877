"""Work ends by itself, by a stop, or by a guard; nothing keeps running."""

from __future__ import annotations

import asyncio

import pytest

from deploy.demo.supervise import supervise


class _Never:
    """A coroutine that waits for ever and notes how it ended."""

    def __init__(self) -> None:
        self.cancelled = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def _done() -> None:
    await asyncio.sleep(0)


async def _fail(message: str, after: asyncio.Event | None = None) -> None:
    if after:
        await after.wait()
    raise RuntimeError(message)


async def test_finished_work_ends_its_guards() -> None:
    guard = _Never()
    assert await supervise(_done(), asyncio.Event(), guard.run())
    assert guard.cancelled


async def test_a_stop_ends_the_work() -> None:
    stop, work = asyncio.Event(), _Never()
    asyncio.get_running_loop().call_soon(stop.set)
    assert not await supervise(work.run(), stop)
    assert work.cancelled


async def test_a_failing_guard_ends_the_work_and_says_why() -> None:
    work = _Never()
    with pytest.raises(RuntimeError, match="the engine died"):
        await supervise(work.run(), asyncio.Event(), _fail("the engine died"))
    assert work.cancelled


async def test_a_guard_explains_the_failure_of_the_work() -> None:
    work_failed = asyncio.Event()

    async def work() -> None:
        work_failed.set()
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="the engine died"):
        await supervise(work(), asyncio.Event(), _fail("the engine died", after=work_failed))


async def test_work_that_fails_alone_raises_its_own_error() -> None:
    with pytest.raises(RuntimeError, match="no answer"):
        await supervise(_fail("no answer"), asyncio.Event())
    with pytest.raises(RuntimeError, match="no answer"):
        await supervise(_fail("no answer"), asyncio.Event(), _Never().run())
