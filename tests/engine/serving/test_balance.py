"""A client of several engines calls those that serve, in turn, and turns away from one that says it will not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from ousel import AsyncClient

from engine.config import Config, ServingConfig
from engine.serving.server import Server
from tests.engine.serving.fakes import FakeEngine, FakeLog, until


class One:
    """An engine of several."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        config = Config(serving=ServingConfig(port=0, metrics_port=0))
        self.server = Server(config, self.engine, self.engine.subscriptions, FakeLog())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def asked(self) -> int:
        return len(self.engine.asked)


@pytest.fixture
async def both() -> AsyncIterator[tuple[One, One]]:
    made = One(), One()
    for one in made:
        await one.server.start()
        await one.server.set_serving(True)
    yield made
    for one in made:
        await one.server.stop(0)


async def called(client: AsyncClient, both: tuple[One, One], times: int = 10) -> tuple[int, int]:
    """How many of some calls each engine was asked."""
    before = [one.asked for one in both]
    for _ in range(times):
        await client.recommend("u1")
    first, second = (one.asked - had for one, had in zip(both, before, strict=True))
    return first, second


async def test_calls_go_in_turn_to_the_engines_that_serve(both):
    async with AsyncClient([one.address for one in both], timeout_s=20) as client:
        await called(client, both, 1)
        async with asyncio.timeout(20):
            while (await called(client, both))[0] != 5:  # until both connections stand
                pass
        await both[0].server.set_serving(False)
        async with asyncio.timeout(20):
            while await called(client, both) != (0, 10):  # until the client has heard of it
                pass
        await both[0].server.set_serving(True)
        async with asyncio.timeout(20):
            while await called(client, both) != (5, 5):
                pass


async def test_an_engine_that_stops_fails_no_call_of_such_a_client(both):
    async with AsyncClient([one.address for one in both], timeout_s=20) as client:
        done = asyncio.Event()

        async def calls() -> int:
            answered = 0
            while not done.is_set():
                await client.recommend("u1")
                answered += 1
            return answered

        callers = [asyncio.create_task(calls()) for _ in range(8)]
        await until(lambda: both[0].asked > 20 and both[1].asked > 20, "calls to both")
        await both[0].server.stop(grace_s=5, drain_s=0.2)
        after = both[1].asked
        await until(lambda: both[1].asked > after + 50, "calls to the other one")
        done.set()
        assert min(await asyncio.gather(*callers)) > 0


async def test_a_client_of_one_engine_calls_it_also_while_it_does_not_serve(both):
    await both[0].server.set_serving(False)
    async with AsyncClient(both[0].address) as client:
        assert (await client.status()).model_version == 3
