"""How to reach Kafka: the settings that every client shares, and the wait for a broker at the start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.config import KafkaConfig
from engine.events.broker_client import BrokerClient
from engine.events.diagnosis import connection_problem

_FIRST_BACKOFF_S = 0.25
_MAX_BACKOFF_S = 10.0
# A topic that changes must be noticed within 10 s, so every client asks for its metadata twice as often.
_METADATA_MAX_AGE_MS = 5000
_LONGEST_ANSWER_BYTES = 2**31 - 1  # the protocol's own limit


def connection_settings(config: KafkaConfig) -> dict[str, Any]:
    """The settings that kafka-python's consumer, producer and admin client share."""
    settings: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap.split(","),
        "client_id": "ousel",
        "request_timeout_ms": config.request_timeout_ms,
        "bootstrap_timeout_ms": config.request_timeout_ms,
        "metadata_max_age_ms": _METADATA_MAX_AGE_MS,
        # Without it, a client makes again what somebody has deleted, and holds an answer of any size in memory.
        "kafka_client": partial(BrokerClient, max_answer_bytes=config.max_answer_bytes),
        # kafka-python would close the connection at an answer that is longer than this, and ask for the same again.
        "receive_message_max_bytes": _LONGEST_ANSWER_BYTES,
        # After an outage, be back within a second of the broker.
        "reconnect_backoff_max_ms": 1000,
        "security_protocol": config.security_protocol,
        "ssl_check_hostname": config.ssl_check_hostname,
    }
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(config, name)
        if path is not None:
            settings[name] = str(path)
    if config.sasl_mechanism is not None:
        settings["sasl_mechanism"] = config.sasl_mechanism
        settings["sasl_plain_username"] = config.sasl_username
        settings["sasl_plain_password"] = config.sasl_password.get_secret_value() if config.sasl_password else None
    return settings


def wait_for_broker(config: KafkaConfig, stop: threading.Event, report: Callable[[str], None]) -> bool:
    """Tries until a broker answers, with pauses from 0.25 s that double up to 10 s.

    Args:
        stop: ends the wait.
        report: gets one line before each pause: the address, what to check and when the next try comes.

    Returns:
        True once a broker answered, False where `stop` came first.
    """
    backoff_s = _FIRST_BACKOFF_S
    while not stop.is_set():
        problem = connection_problem(config, connection_settings(config))
        if problem is None:
            return True
        report(f"{problem}; next try in {backoff_s:g} s")
        stop.wait(backoff_s)
        backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
    return False
