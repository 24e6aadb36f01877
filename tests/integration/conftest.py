"""One embedded broker for the session, and fresh topics on it for every test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from deploy.local.broker import EmbeddedBroker
from engine.config import KafkaConfig
from engine.events.topics import ensure_topics


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def kafka_config(broker: EmbeddedBroker) -> KafkaConfig:
    """Points at the broker; its topics are new and empty."""
    unique = uuid.uuid4().hex
    config = KafkaConfig(
        bootstrap=broker.bootstrap,
        events_topic=f"ousel.events.{unique}",
        items_topic=f"ousel.items.{unique}",
        dead_letters_topic=f"ousel.dead-letters.{unique}",
        events_partitions=3,
    )
    ensure_topics(config)
    return config
