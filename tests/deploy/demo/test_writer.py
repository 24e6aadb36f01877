"""The log's answers, from a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deploy.demo.writer import LogWriter, WriteError
from deploy.local.broker import EmbeddedBroker
from engine.config import KafkaConfig
from engine.events.topics import ensure_topics


async def test_every_record_is_answered_with_its_place(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        config = KafkaConfig(bootstrap=broker.bootstrap, events_partitions=2)
        ensure_topics(config)
        writer = LogWriter(config, linger_ms=5)
        places: list[tuple[int, int]] = []
        try:
            for number in range(500):
                await writer.room()
                acked = lambda partition, offset: places.append((partition, offset))  # noqa: E731
                writer.send(config.events_topic, f"user {number % 7}", b"payload", acked)
            async with asyncio.timeout(20):
                await writer.flush()
            assert (writer.sent, writer.acked, writer.pending) == (500, 500, 0)
            for partition in {partition for partition, _ in places}:
                offsets = [offset for where, offset in places if where == partition]
                assert offsets == list(range(len(offsets)))
        finally:
            writer.close()


async def test_a_record_that_is_too_large_is_an_error_and_not_a_silence(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        config = KafkaConfig(bootstrap=broker.bootstrap)
        ensure_topics(config)
        writer = LogWriter(config, linger_ms=0)
        try:
            with pytest.raises(WriteError):
                writer.send(config.events_topic, "user", bytes(2**21))
                async with asyncio.timeout(20):
                    await writer.flush()
        finally:
            writer.close()
