"""Answers of another thread reach those who wait for them, and few wake-ups bring many."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from engine.serving.inbox import Inbox


async def test_each_gets_its_own_result_and_a_batch_wakes_the_loop_once(monkeypatch):
    loop, woken = asyncio.get_running_loop(), []
    inbox = Inbox(loop)
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (woken.append(1), wake(*args))[1], raising=False)
    futures: list[Future[int]] = [Future() for _ in range(50)]
    waiting = [asyncio.ensure_future(inbox.wait(future)) for future in futures]
    await asyncio.sleep(0)
    for at, future in enumerate(futures):
        future.set_result(at)
    assert len(woken) == 1
    assert await asyncio.gather(*waiting) == list(range(50))


async def test_nothing_is_lost_where_answers_come_while_others_are_taken():
    inbox = Inbox(asyncio.get_running_loop())
    futures: list[Future[int]] = [Future() for _ in range(2000)]
    waiting = [asyncio.ensure_future(inbox.wait(future)) for future in futures]
    await asyncio.sleep(0)
    threads = [
        threading.Thread(target=lambda part: [future.set_result(at) for at, future in part], args=(part,))
        for part in (list(enumerate(futures))[first::4] for first in range(4))
    ]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting) == list(range(2000))
    for thread in threads:
        thread.join()


async def test_a_failure_is_raised_and_one_that_is_done_already_is_taken():
    inbox = Inbox(asyncio.get_running_loop())
    failed: Future[int] = Future()
    failed.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await inbox.wait(failed)


async def test_who_is_cancelled_takes_the_question_back_and_disturbs_nobody():
    inbox = Inbox(asyncio.get_running_loop())
    one, other = Future[int](), Future[int]()
    gone, stays = asyncio.ensure_future(inbox.wait(one)), asyncio.ensure_future(inbox.wait(other))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert one.cancelled()
    other.set_result(1)
    assert await stays == 1


async def test_a_future_that_is_cancelled_elsewhere_cancels_who_waits():
    inbox = Inbox(asyncio.get_running_loop())
    future = Future[int]()
    waiting = asyncio.ensure_future(inbox.wait(future))
    await asyncio.sleep(0)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
