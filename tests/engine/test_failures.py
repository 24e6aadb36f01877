from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import threading

import pytest

from engine import failures as module
from engine.failures import log_loop_failures, log_thread_failures, one_line_each, told
from engine.limited_log import LimitedLog

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FULL, "ousel-engine: No space left on device: /data/x"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "ousel-engine: Connection reset by peer"),
        (MemoryError(), "ousel-engine: MemoryError"),
    ],
)
def test_a_failure_of_the_machine_ends_a_program_by_one_line(error: BaseException, said: str) -> None:
    with pytest.raises(SystemExit) as ended, one_line_each("ousel-engine"):
        raise error
    assert ended.value.code == said
    assert ended.value.__cause__ is None and ended.value.__suppress_context__


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 1)])
def test_an_interrupt_and_output_that_nobody_reads_say_nothing(error: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as ended, one_line_each("ousel-engine"):
        raise error
    assert ended.value.code == code


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), one_line_each("ousel-engine"):
        raise ZeroDivisionError


@pytest.mark.parametrize(("error", "trace"), [(FULL, False), (KeyError("x"), True)])
def test_a_thread_that_fails_is_one_line_unless_it_is_a_bug(
    error: Exception, trace: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    log_thread_failures()

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail, name="snapshot")
    thread.start()
    thread.join()
    (record,) = caplog.records
    assert record.getMessage().startswith("the thread snapshot ended: ")
    assert bool(record.exc_info) is trace


@pytest.mark.parametrize(("error", "trace"), [(FULL, False), (KeyError("x"), True)])
async def test_work_in_the_loop_that_nobody_waits_for_is_one_line_unless_it_is_a_bug(
    error: Exception, trace: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_limited", LimitedLog(logging.getLogger(), schedule=lambda *_: None))
    log_loop_failures(asyncio.get_running_loop(), lambda error: isinstance(error, OSError))

    async def fail() -> None:
        raise error

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert bool(record.exc_info) is trace
    if not trace:
        assert record.getMessage().endswith("has failed: No space left on device: /data/x")


def test_an_error_without_a_text_is_told_by_its_kind() -> None:
    assert told(TimeoutError()) == "TimeoutError"
    assert told(ValueError("no")) == "ValueError: no"
