"""One broker for the session, and fresh topics on it for every test.

Apache Kafka where `KAFKA_HOME` names one, else the embedded broker. With `OUSEL_TEST_SECURITY=SASL_SSL` Apache Kafka
asks for TLS and a password.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from deploy.local.brokers import Broker, start_broker
from engine.config import KafkaConfig
from engine.events.topics import ensure_topics
from tests.brokers_named import brokers_of

SECURITY = os.environ.get("OUSEL_TEST_SECURITY", "PLAINTEXT")
StartBroker = Callable[..., Broker]


@pytest.fixture(scope="session")
def start() -> StartBroker:
    """`start_broker` with the security that the tests run with: start(data_dir, port=0)."""
    tls = SECURITY.endswith("SSL")
    return partial(start_broker, tls=tls, sasl=("tester", "right") if SECURITY.startswith("SASL") else None)


@pytest.fixture(scope="session")
def broker(
    start: StartBroker, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Broker]:
    with start(tmp_path_factory.mktemp("broker")) as running:
        brokers_of(request.config).append(running.name)
        yield running


@pytest.fixture
def kafka_config(broker: Broker) -> KafkaConfig:
    """Points at the broker; its topics are new and empty."""
    unique = uuid.uuid4().hex
    config = KafkaConfig(
        **broker.client_settings(),
        events_topic=f"ousel.events.{unique}",
        items_topic=f"ousel.items.{unique}",
        dead_letters_topic=f"ousel.dead-letters.{unique}",
        group_id=f"ousel-engine.{unique}",
        events_partitions=3,
        session_timeout_ms=6000,
    )
    ensure_topics(config)
    return config
