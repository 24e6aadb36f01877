"""Can the brokers be reached, and do they let this program in?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka.admin import KafkaAdminClient

from engine.checks.finding import Finding, error, ok
from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings
from engine.events.diagnosis import connection_problem

_REQUEST_MS = 4000  # for one question, so that a check with a few of them ends in its time


def look_at_brokers(config: KafkaConfig) -> Iterator[Finding]:
    """Connects as every client does, to the given addresses and to those that the brokers tell."""
    problem = connection_problem(config, connection_settings(config), everywhere=True)
    if problem is not None:
        yield error(problem)
        return
    user = f", as {config.sasl_username!r}" if config.sasl_username else ""
    yield ok(f"the brokers at {config.bootstrap} answer over {config.security_protocol}{user}")


@contextmanager
def admin_client(config: KafkaConfig) -> Iterator[KafkaAdminClient]:
    """A client for questions, which answers or fails within a few seconds."""
    client = open_client(KafkaAdminClient, connection_settings(hurried(config)))
    try:
        yield client
    finally:
        client.close()


def hurried(config: KafkaConfig) -> KafkaConfig:
    """The same with little time for one request."""
    return config.model_copy(update={"request_timeout_ms": min(config.request_timeout_ms, _REQUEST_MS)})
