"""Many calls at once from a stock client in another process: each is answered or refused with a hint, and counted."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import pytest
from ousel.v1 import event_pb2

from engine import metrics
from engine.config import Config, ServingConfig
from engine.events.producer import ProducerFullError
from engine.pipeline import Overloaded
from engine.ranking.query import Position, Query, Ranking
from tests.engine.serving.burst import Burst, burst
from tests.engine.serving.fakes import Served

CALLS = 5000


def counted(method: str) -> dict[str, float]:
    samples = metrics.CALLS.collect()[0].samples
    return {s.labels["code"]: s.value for s in samples if s.name.endswith("_total") and s.labels["method"] == method}


def unseen() -> float:
    return metrics.CALLS_UNSEEN.collect()[0].samples[0].value


def every_third(refuse: Callable[[], Exception]) -> Callable[[], Exception | None]:
    asked = 0

    def refusal() -> Exception | None:
        nonlocal asked
        asked += 1
        return refuse() if asked % 3 == 0 else None

    return refusal


def refuse_every_third(served: Served) -> None:
    """Makes the engine and the log refuse as the real ones do when they have too much to do."""
    ask, send = served.engine.ask, served.log.send_event
    overloaded = every_third(partial(Overloaded, "too many calls wait"))
    full = every_third(partial(ProducerFullError, "too many events wait"))

    def ask_some(query: Query, after: Position | None = None) -> Future[Ranking]:
        if refusal := overloaded():
            raise refusal
        return ask(query, after)

    def send_some(event: event_pb2.Event) -> Future[event_pb2.LogPosition]:
        served.log.failure = full()
        return send(event)

    served.engine.ask, served.log.send_event = ask_some, send_some


async def burst_before_a_look(served: Served, method: str, channels: int) -> Burst:
    """All calls arrive before the event loop takes up the first, as where it is busy with other work."""
    already = unseen()
    address = f"127.0.0.1:{served.server.port}"
    running = asyncio.create_task(asyncio.to_thread(burst, address, method, CALLS, channels))
    await asyncio.sleep(0)  # the thread starts
    deadline_s, pause = time.monotonic() + 60, threading.Event()
    while unseen() < already + CALLS:
        assert time.monotonic() < deadline_s, f"{unseen() - already} of {CALLS} calls have arrived"
        pause.wait(0.01)  # keeps the event loop from its work
    return await running


@pytest.mark.parametrize("whole", [Config(serving=ServingConfig(port=0, metrics_port=0))], indirect=True, ids=[""])
@pytest.mark.parametrize("channels", [1, 50])
@pytest.mark.parametrize(("service", "method"), [("RecommenderService", "Recommend"), ("EventService", "Track")])
async def test_each_call_of_a_burst_is_answered_or_refused_with_a_hint_and_counted(
    served: Served, service: str, method: str, channels: int
):
    refuse_every_third(served)
    before = counted(f"{service}/{method}")
    ended = await burst_before_a_look(served, method, channels)
    assert ended.codes == {"OK": CALLS - CALLS // 3, "RESOURCE_EXHAUSTED": CALLS // 3}
    assert ended.hinted == {"OK": 0, "RESOURCE_EXHAUSTED": CALLS // 3}
    now = counted(f"{service}/{method}")
    assert {code: now[code] - before.get(code, 0) for code in now if now[code] != before.get(code)} == ended.codes
    assert unseen() == 0


@pytest.mark.parametrize("config", [ServingConfig(port=0, metrics_port=0, max_backlog=1000)], indirect=True)
async def test_calls_that_grpc_cancels_beyond_the_backlog_are_counted_as_unseen(served: Served):
    ended = await burst_before_a_look(served, "Recommend", 1)
    assert ended.codes.keys() == {"OK", "CANCELLED"}
    assert unseen() == ended.codes["CANCELLED"] >= CALLS - 2000
