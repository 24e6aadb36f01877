"""What a client may take, over a real connection: each limit, by token and by address, and none on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ousel.v1 import model_service_pb2, recommender_service_pb2
from ousel.v1.event_pb2 import Event
from ousel.v1.event_service_pb2 import TrackRequest

from engine import metrics
from engine.config import ClientsConfig, Config, ServingConfig
from engine.security import guard
from engine.serving.server import Server
from tests.engine.security.tokens import bearer, line, put
from tests.engine.serving.fakes import FakeEngine, FakeLog, FakeModels, Served, Stream, until

REQUEST = recommender_service_pb2.RecommendRequest(query=recommender_service_pb2.Query(user_id="u1", k=5))
SHOP, OTHER = bearer("shop"), bearer("other")
ROLES = "recommend,track,push"


@asynccontextmanager
async def served(folder: Path | None, **limits: Any) -> AsyncIterator[Served]:
    """A server of tokens, or of none where no folder is given."""
    security = {}
    if folder is not None:
        lines = f"{line('shop', ROLES, 'shop')}\n{line('other', ROLES, 'other')}\n"
        security = {"tokens_file": put(folder / "tokens", lines)}
    config = Config(
        serving=ServingConfig(port=0, metrics_port=0), security=security, clients=ClientsConfig(**limits)
    )  # fmt: skip
    engine, log = FakeEngine(), FakeLog()
    server = Server(config, engine, engine.subscriptions, log, FakeModels())
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Served(server, engine, log, channel)
    await server.stop(0)


async def refusal(call: Any) -> tuple[str, str]:
    """Details and retry hint of a call that must be refused for a limit."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async with asyncio.timeout(5):
            await call
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    hints = dict(error.value.trailing_metadata())
    return error.value.details(), hints["grpc-retry-pushback-ms"]


def refused(reason: str) -> float:
    return metrics.CALLS_REFUSED.labels(reason, "recommend")._value.get()


async def test_calls_a_second_are_limited_by_token(tmp_path):
    before = refused("rate")
    async with served(tmp_path, max_calls_per_s=0.1) as house:  # one call at first, and the next after 10 s
        await house.recommender.Recommend(REQUEST, metadata=SHOP)
        details, hint = await refusal(house.recommender.Recommend(REQUEST, metadata=SHOP))
        assert "at most 0.1 calls a second (clients.max_calls_per_s)" in details
        assert 0 < int(hint) <= 20_000
        await house.recommender.Recommend(REQUEST, metadata=OTHER)
    assert refused("rate") == before + 1


async def test_open_calls_are_limited_by_token(tmp_path):
    async with served(tmp_path, max_concurrent_calls=1) as house:
        house.engine.hold = True
        held = house.recommender.Recommend(REQUEST, metadata=SHOP)
        await until(lambda: len(house.engine.asked) == 1, "the first call is held")
        details, hint = await refusal(house.recommender.Recommend(REQUEST, metadata=SHOP))
        assert "at most 1 open calls (clients.max_concurrent_calls)" in details and int(hint) > 0
        held.cancel()
        house.engine.hold = False
        await until(lambda: known() == 1 and not busy(house), "the first call has left")
        await house.recommender.Recommend(REQUEST, metadata=SHOP)


def known() -> float:
    return metrics.CLIENTS.collect()[0].samples[0].value


def busy(house: Served) -> dict[str, Any]:
    return house.server.models._calls._guard._limits._busy


async def test_open_streams_are_limited_by_token(tmp_path):
    async with served(tmp_path, max_streams=1) as house:
        stream = Stream(house, SHOP)
        await stream.subscribe()
        await stream.list()
        second = Stream(house, SHOP)
        code, details = await second.end()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "(clients.max_streams)" in details
        other = Stream(house, OTHER)
        await other.subscribe()
        await other.list()
        stream.call.cancel()
        await until(lambda: "token shop" not in busy(house), "the stream has ended")
        third = Stream(house, SHOP)
        await third.subscribe()
        await third.list()


async def test_messages_on_a_stream_wait_for_their_turn(tmp_path):
    async with served(tmp_path, max_calls_per_s=20) as house:
        stream = Stream(house, SHOP)
        await stream.subscribe()
        await stream.list()
        began_s = asyncio.get_running_loop().time()
        for _ in range(30):
            await stream.send(item_id="a", kind="view")
        await until(lambda: len(house.log.events) == 30, "all are written")
        assert asyncio.get_running_loop().time() - began_s > 0.4


async def test_the_size_of_a_message_is_limited_but_for_a_push(tmp_path):
    async with served(tmp_path, max_message_bytes=1024) as house:
        await house.events.Track(TrackRequest(event=Event(user_id="u", item_id="a", kind="view")), metadata=SHOP)
        long = TrackRequest(event=Event(user_id="u", item_id="a" * 2000, kind="view"))
        details, hint = await refusal(house.events.Track(long, metadata=SHOP))
        assert "at most 1024 bytes (clients.max_message_bytes)" in details and hint == "-1"
        stream = Stream(house, SHOP)
        await stream.subscribe()
        await stream.list()
        await stream.send(item_id="a" * 2000, kind="view")
        assert (await stream.end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await house.model.PushWeights(_push(b"x" * 100_000), metadata=SHOP)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # of its digest: it was read whole


async def _push(weights: bytes) -> AsyncIterator[model_service_pb2.PushWeightsRequest]:
    header = model_service_pb2.WeightsHeader(version=9, size_bytes=len(weights), sha256=bytes(32))
    yield model_service_pb2.PushWeightsRequest(header=header)
    yield model_service_pb2.PushWeightsRequest(chunk=weights)


async def test_the_size_of_metadata_is_limited(tmp_path):
    async with served(tmp_path, max_metadata_bytes=512) as house:
        await house.recommender.Recommend(REQUEST, metadata=SHOP)
        details, hint = await refusal(house.recommender.Recommend(REQUEST, metadata=(*SHOP, ("x-long", "x" * 500))))
        assert "at most 512 bytes (clients.max_metadata_bytes)" in details and hint == "-1"


TINY = {
    "max_calls_per_s": 0.1, "max_concurrent_calls": 1, "max_streams": 1, "max_message_bytes": 1024,
    "max_metadata_bytes": 256,
}  # fmt: skip


async def use_everything(house: Served) -> None:
    """More of everything than the tiny limits allow."""
    metadata = (("x-long", "x" * 500),)
    await asyncio.gather(*(house.recommender.Recommend(REQUEST, metadata=metadata) for _ in range(5)))
    streams = [Stream(house) for _ in range(3)]
    for stream in streams:
        await stream.subscribe()
        await stream.list()


async def test_a_client_on_the_loopback_without_a_token_has_no_limits():
    async with served(None, **TINY) as house:
        await use_everything(house)
        long = recommender_service_pb2.Query(user_id="u1", k=5)
        long.options.exclude_item_ids.extend(f"{number:0200}" for number in range(100))
        await house.recommender.Recommend(recommender_service_pb2.RecommendRequest(query=long))
        assert not busy(house) and known() == 0


async def test_without_tokens_another_address_is_a_client(monkeypatch):
    # The tests have no second machine, so the loopback stands for one.
    monkeypatch.setattr(guard, "client_key", lambda token, peer: peer.rpartition(":")[0])
    async with served(None, max_calls_per_s=0.1) as house:
        await house.recommender.Recommend(REQUEST)
        await refusal(house.recommender.Recommend(REQUEST))
        # Health is a call as well.
        check = house.channel.unary_unary("/grpc.health.v1.Health/Check")
        await refusal(check(b""))
