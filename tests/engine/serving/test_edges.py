"""The edges of gRPC that docs/limits.md states: pings from both sides, the largest request, the headers of a call.

Frames are written and read by hand, since no client library pings as carelessly as some users set theirs to.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from ousel.v1 import recommender_service_pb2
from ousel.v1.event_pb2 import Event
from ousel.v1.event_service_pb2 import TrackRequest
from ousel.v1.model_service_pb2 import GetStatusRequest
from ousel.v1.recommender_service_pb2 import RecommendationList

from engine.config import Config, ServingConfig
from engine.events.rules import MAX_TITLE_CHARS
from engine.serving import server as module
from engine.serving.server import Server
from tests.engine.serving.fakes import FakeEngine, Served, failure

PAGE = (Path(__file__).parents[3] / "docs" / "limits.md").read_text()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY, ACK = 4, 6, 7, 1
ENHANCE_YOUR_CALM = 11


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4) + payload


class Raw:
    """A connection whose frames are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        writer.write(PREFACE + frame(SETTINGS, 0, b""))

    async def read(self) -> tuple[int, int, bytes]:
        """Kind, flags and payload of the next frame; settings and pings are acknowledged."""
        head = await self._reader.readexactly(9)
        kind, flags, payload = head[3], head[4], await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._writer.write(frame(kind, ACK, payload if kind == PING else b""))
        return kind, flags, payload

    async def ping(self) -> tuple[int, bytes]:
        """The frame that answers a ping: its kind, and its payload."""
        self._writer.write(frame(PING, 0, b"12345678"))
        while True:
            kind, flags, payload = await self.read()
            if kind == GOAWAY or (kind == PING and flags & ACK):
                return kind, payload


@asynccontextmanager
async def connected() -> AsyncIterator[Raw]:
    engine = FakeEngine()
    server = Server(Config(serving=ServingConfig(port=0, metrics_port=0)), engine, engine.subscriptions, None)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(30):
            yield Raw(reader, writer)
    finally:
        writer.close()
        await server.stop(0)


async def test_the_third_ping_that_comes_too_early_ends_the_connection():
    async with connected() as raw:
        kind, payload = [await raw.ping() for _ in range(4)][-1]
        while kind != GOAWAY:  # The ping may be answered before the end is told.
            kind, _, payload = await raw.read()
    assert struct.unpack_from(">I", payload, 4) == (ENHANCE_YOUR_CALM,)
    assert payload[8:] == b"too_many_pings"


async def test_pings_that_keep_their_distance_are_answered_without_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_CLIENT_PING_MS", 0)
    async with connected() as raw:
        answers = [await raw.ping() for _ in range(20)]
    assert {kind for kind, _ in answers} == {PING}


async def test_the_engine_pings_on_while_nothing_is_sent(monkeypatch: pytest.MonkeyPatch):
    """A balancer of TCP must see packets for as long as a stream is silent, not only for the first minutes."""
    monkeypatch.setattr(module, "_PING_MS", 50)
    async with connected() as raw:
        pings = 0
        while pings < 6:
            kind, flags, _ = await raw.read()
            pings += kind == PING and not flags & ACK


async def test_a_request_may_have_4_mib(served: Served):
    def request(size: int) -> TrackRequest:
        return TrackRequest(event=Event(user_id="u", item_id="a", attributes={"a": "x" * (size - 24)}))

    most = module._MAX_REQUEST_BYTES
    assert len(request(most).SerializeToString()) == most
    await served.events.Track(request(most))
    code, why = await failure(served.events.Track(request(most + 1)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in why


async def test_headers_of_8_kib_are_taken_and_of_16_kib_are_refused(served: Served):
    async def call(size: int) -> None:
        await served.model.GetStatus(GetStatusRequest(), metadata=(("x", "y" * size),))

    await call(7 * 1024)
    code, why = await failure(call(17 * 1024))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "metadata" in why


def test_the_largest_list_is_as_large_as_the_page_says():
    """Stock clients take 4 MiB, so such a list needs a setting of theirs."""
    config = Config()
    longest = {
        "item_id": "x" * config.events.max_id_bytes, "title": "\U0001f600" * MAX_TITLE_CHARS, "score": 0.5,
        "sources": [source for source in recommender_service_pb2.Source.values() if source],
    }  # fmt: skip
    items = RecommendationList(items=[longest] * config.ranking.max_k)
    topic = {"topic": "t" * 249, "partition": 1023, "offset": 2**40}
    assert f"{items.ByteSize() / 1e6:.1f} MB" == "4.4 MB"
    assert "are 4.4 MB" in PAGE
    assert RecommendationList(reflects=[topic]).ByteSize() < 300
    usual = [{"item_id": "1082185", "title": "Bananas", "score": 0.5, "sources": [1, 2]}] * 10
    assert RecommendationList(items=usual).ByteSize() < 1000


def test_the_page_states_the_edges_as_the_code_has_them():
    table = PAGE.split("\n## Connections, messages and proxies")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", table, re.MULTILINE))
    assert rows["request"].startswith(f"{module._MAX_REQUEST_BYTES // 2**20} MiB")
    assert f"one in {module._CLIENT_PING_MS // 1000} s" in rows["pings of a client"]
    ours = rows["pings of the engine"]
    assert f"one in {module._PING_MS // 1000} s" in ours and f"; {module._PING_ANSWER_MS // 1000} s for" in ours
    assert rows["a connection without a call"].startswith(f"{module._IDLE_MS // 60_000} minutes")
