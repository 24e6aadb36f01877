"""The topics that Ousel needs: created where they are missing, and told from others of the same name."""

from __future__ import annotations

from collections.abc import Mapping

from kafka.admin import KafkaAdminClient
from kafka.errors import NoError, TopicAlreadyExistsError, for_code

from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings


def ensure_topics(config: KafkaConfig) -> None:
    """Creates the events, items and dead-letters topics that are missing; what exists is left as it is.

    Raises:
        kafka.errors.KafkaError: the broker is away, or refuses one of them.
    """
    _ensure(
        config,
        {
            config.events_topic: _topic(config, config.events_partitions),
            # Compacted: the newest record of each item is the catalog, and it is kept for as long as the topic.
            config.items_topic: _topic(config, 1, {"cleanup.policy": "compact"}),
            config.dead_letters_topic: _topic(config, 1),
        },
    )


def ensure_compacted(config: KafkaConfig, name: str) -> None:
    """Creates a compacted topic of one partition where it is missing, as `ensure_topics` does.

    Raises:
        kafka.errors.KafkaError: the broker is away, or refuses it.
    """
    _ensure(config, {name: _topic(config, 1, {"cleanup.policy": "compact"})})


def _ensure(config: KafkaConfig, wanted: Mapping[str, dict[str, object]]) -> None:
    admin = open_client(KafkaAdminClient, connection_settings(config))
    try:
        existing = set(admin.list_topics())
        missing = {name: topic for name, topic in wanted.items() if name not in existing}
        if not missing:
            return
        answer = admin.create_topics(missing, timeout_ms=config.request_timeout_ms, raise_errors=False)
        for topic in answer["topics"]:
            error = for_code(topic["error_code"])
            # Engine and trainer may start together: whoever comes second finds the topic there.
            if error not in (NoError, TopicAlreadyExistsError):
                raise error(f"topic {topic['name']!r} can't be created: {topic['error_message']}")
        admin.wait_for_topics(list(missing), timeout_ms=config.request_timeout_ms)
    finally:
        admin.close()


def topic_id(config: KafkaConfig, topic: str) -> str | None:
    """The broker's own id of a topic: another one once it is deleted and made anew. None where it gives none.

    Raises:
        kafka.errors.KafkaError: the broker is away, or has no such topic.
    """
    admin = open_client(KafkaAdminClient, connection_settings(config))
    try:
        (described,) = admin.describe_topics([topic])
    finally:
        admin.close()
    error = for_code(described["error_code"])
    if error is not NoError:
        raise error(f"topic {topic!r} can't be described")
    found: str | None = described["topic_id"]
    return found


def _topic(config: KafkaConfig, partitions: int, configs: dict[str, str] | None = None) -> dict[str, object]:
    return {
        "num_partitions": partitions,
        "replication_factor": config.replication_factor,
        # The broker's own clock is the one bound on the time of an event, and decides what retention deletes: a
        # producer that sets the time of its records may set any.
        "configs": {"message.timestamp.type": "LogAppendTime"} | (configs or {}),
    }
