"""The settings of the consumer that reads the log."""

from __future__ import annotations

from typing import Any

from engine.config import KafkaConfig
from engine.events.connection import connection_settings
from engine.events.sharing import SharedEvents

_FETCH_WAIT_MS = 50  # The broker may hold a fetch that finds nothing for so long.
EMPTY_FETCH_MS = 20  # A broker that holds no fetch is asked again after so long, once it has been quiet.
_FETCH_BYTES = 16 << 20  # A broker puts at most so much into one answer, or one batch.
# The group waits so long for a member to join again; its thread is never busy for longer than two look-ups of offsets.
_MAX_POLL_INTERVAL_MS = 60_000


def consumer_settings(config: KafkaConfig) -> dict[str, Any]:
    """The settings of a `LogConsumer` that reads all partitions, or this engine's share of them."""
    settings = connection_settings(config) | {
        "enable_auto_commit": False,
        "fetch_min_bytes": 1,
        "fetch_max_wait_ms": _FETCH_WAIT_MS,
        "empty_fetch_ms": EMPTY_FETCH_MS,
        "fetch_max_bytes": min(_FETCH_BYTES, config.max_answer_bytes),
        "max_poll_records": config.max_poll_records,
        "max_poll_bytes": config.max_poll_bytes,
        "max_record_bytes": config.max_record_bytes,
        # Records of a transaction count once it is committed, and the log ends, for us, before the first open one.
        "isolation_level": "read_committed",
        "allow_auto_create_topics": False,
        # Starting over where the log lost our place would fold records twice: `KafkaSource` fails instead.
        "auto_offset_reset": "none",
    }
    if config.share:
        settings |= {
            "group_id": config.group_id,
            "session_timeout_ms": config.session_timeout_ms,
            "heartbeat_interval_ms": config.session_timeout_ms // 4,
            "max_poll_interval_ms": max(_MAX_POLL_INTERVAL_MS, 4 * config.request_timeout_ms),
            "partition_assignment_strategy": [SharedEvents(config.items_topic)],
        }
    return settings
