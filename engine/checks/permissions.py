"""May this client do what the program will ask for? As far as the broker tells; nothing is tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kafka.admin import KafkaAdminClient
from kafka.errors import GroupIdNotFoundError, KafkaError, NoError, for_code

from engine.checks.brokers import admin_client
from engine.checks.finding import Finding, Level, error, ok, warning
from engine.config import KafkaConfig

# Asking for a group makes the broker create this topic, which a check must not cause.
_GROUPS_TOPIC = "__consumer_offsets"


class Need(NamedTuple):
    """A right on a topic.

    Attributes:
        without: what becomes of it where the right is missing.
        level: how much that matters.
    """

    topic: str
    right: str
    without: str
    level: Level = Level.ERROR


def engine_needs(config: KafkaConfig, models: str) -> list[Need]:
    """The rights of the engine.

    Args:
        models: the name of the models' topic.
    """
    letters = config.dead_letters_topic
    return [
        Need(config.events_topic, "READ", "the engine does not start"),
        Need(config.events_topic, "WRITE", "Track, ForgetUser and events on streams fail", Level.WARNING),
        Need(config.items_topic, "READ", "the engine does not start"),
        Need(letters, "WRITE", "records that break a rule can't be kept, and reading stops once many of them wait"),
        Need(letters, "READ", "the engine can't tell which letters are there already, and writes none"),
        Need(models, "READ", "no model can be pushed here, and none serves but this engine's own copy of the last one"),
        Need(models, "WRITE", "no model can be pushed, pinned or rolled back here", Level.WARNING),
    ]


def trainer_needs(config: KafkaConfig) -> list[Need]:
    """The rights of the trainer."""
    return [Need(topic, "READ", "the trainer does not start") for topic in (config.events_topic, config.items_topic)]


def look_at_permissions(config: KafkaConfig, needs: Sequence[Need], *, in_group: bool) -> Iterator[Finding]:
    """Compares what the broker says that this client may do with what it will do.

    Args:
        in_group: whether the program notes its positions in the group kafka.group_id.
    """
    who = repr(config.sasl_username) if config.sasl_username else "this client"
    topics = list(dict.fromkeys(need.topic for need in needs))
    with admin_client(config) as admin:
        described = {topic["name"]: topic for topic in admin.describe_topics([*topics, _GROUPS_TOPIC])}
        may_create = "CREATE" in (_cluster_operations(admin) or ())
        groups_exist = for_code(described[_GROUPS_TOPIC]["error_code"]) is NoError
        group = _group(admin, config.group_id) if in_group and groups_exist else None
    if all(described[topic]["authorized_operations"] is None for topic in topics):
        yield ok("the broker tells no client what it may do")
        return
    problems = [
        *(found for topic in topics for found in _of_topic(described[topic], needs, who, may_create=may_create)),
        *([] if group is None else _of_group(config, group, who)),
    ]
    yield from problems or [ok(f"{who} may do with the topics all that is needed")]


def _of_topic(described: Mapping[str, Any], needs: Sequence[Need], who: str, *, may_create: bool) -> Iterator[Finding]:
    topic, operations = described["name"], described["authorized_operations"]
    if operations is None:
        return
    exists = for_code(described["error_code"]) is NoError
    if not exists and not may_create and "CREATE" not in operations:
        yield error(
            f"{who} has no right CREATE on topic {topic!r}, which does not exist: make the topic, or give the right"
        )
    for need in needs:
        if need.topic == topic and need.right not in operations:
            lack = f"{who} has no right {need.right} on topic {topic!r}"
            yield Finding(need.level, f"{lack}: without it {need.without}; give the right")
    if exists and "DESCRIBE_CONFIGS" not in operations:
        yield warning(
            f"{who} has no right DESCRIBE_CONFIGS on topic {topic!r}: without it nobody is told when the topic's"
            " settings would lose data; give the right"
        )


def _of_group(config: KafkaConfig, group: Mapping[str, Any], who: str) -> Iterator[Finding]:
    operations = group.get("authorized_operations")
    if group.get("error"):
        refused = f"the broker does not describe group {config.group_id!r} ({group['error']})"
    elif operations is not None and "READ" not in operations:
        refused = f"{who} has no right READ on group {config.group_id!r}"
    else:
        return
    if config.share:
        yield error(f"{refused}: engines can't share partitions (kafka.share); give the rights READ and DESCRIBE on it")
    else:
        yield warning(f"{refused}: positions can't be noted there for others to see; give the rights READ and DESCRIBE")


def _cluster_operations(admin: KafkaAdminClient) -> list[str] | None:
    # kafka-python looks for fields that brokers of older protocols don't send.
    with suppress(KafkaError, KeyError):
        found: list[str] | None = admin.describe_cluster()["authorized_operations"]
        return found
    return None


def _group(admin: KafkaAdminClient, group_id: str) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] | None = admin.describe_groups([group_id]).get(group_id)
        # A client that may not see a group hears something else: the first positions make this one.
        is_new = found is not None and GroupIdNotFoundError.__name__ in (found.get("error") or "")
        return None if is_new else found
    except KafkaError as problem:
        return {"error": type(problem).__name__} if not problem.retriable else None
