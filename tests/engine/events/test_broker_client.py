"""What every client of ours shares; tests/integration/test_topics.py sees that none makes topics."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from engine.config import KafkaConfig
from engine.events.broker_client import BrokerClient, BrokerLink, open_client
from engine.events.connection import connection_settings

DEADLINE_S = 20.0


@pytest.mark.parametrize("kind", [KafkaConsumer, KafkaProducer, KafkaAdminClient])
def test_a_client_that_can_not_be_made_leaves_no_thread(kind: Callable[..., Any]) -> None:
    """A start that waits for a frozen broker for days makes one every few seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = KafkaConfig(bootstrap=f"127.0.0.1:{silent.getsockname()[1]}", request_timeout_ms=100)
        before = set(threading.enumerate())
        with pytest.raises(KafkaError):
            open_client(kind, connection_settings(config))
    deadline, tick = time.monotonic() + DEADLINE_S, threading.Event()
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, left
        tick.wait(0.01)


def test_the_clients_of_our_settings_ask_for_topics_without_making_them() -> None:
    settings = connection_settings(KafkaConfig())
    client = settings["kafka_client"](**settings)
    assert isinstance(client, BrokerClient)
    client.cluster.set_topics(["t"])
    assert client.cluster.metadata_request().allow_auto_topic_creation is False
    client.close()


def test_a_link_knows_no_answer_before_there_was_one() -> None:
    settings = connection_settings(KafkaConfig())
    link = BrokerLink(settings["kafka_client"])
    assert link.answered_s() is None
    client = link(**settings)
    assert link.answered_s() is None
    client.close()
