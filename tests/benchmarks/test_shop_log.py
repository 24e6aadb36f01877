"""The log of a benchmark's shop is whole before anything is measured."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from benchmarks.shop_log import AT_ONCE, write


def test_records_are_sent_a_bounded_number_at_once_and_all_are_waited_for():
    on_the_way: list[Future] = []
    most = 0

    def send() -> Future:
        nonlocal most
        future: Future = Future()
        result = future.result

        def waited(timeout_s: float) -> object:
            on_the_way.remove(future)
            future.set_result(None)
            return result(timeout_s)

        future.result = waited
        on_the_way.append(future)
        most = max(most, len(on_the_way))
        return future

    write(send() for _ in range(2 * AT_ONCE + 1))
    assert on_the_way == []
    assert most == AT_ONCE


def test_a_record_that_does_not_reach_the_log_ends_the_benchmark():
    failed: Future = Future()
    failed.set_exception(ConnectionError("no broker"))
    with pytest.raises(ConnectionError, match="no broker"):
        write(iter([failed]))
