"""How topics stand at the broker, and what is wrong with them for Ousel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.errors import KafkaError, NoError, UnknownTopicIdError, UnknownTopicOrPartitionError, for_code

from engine.config import KafkaConfig

_UNLIMITED = "-1"  # the value of a retention that deletes nothing


@dataclass(frozen=True)
class TopicState:
    """A topic as the broker describes it.

    Attributes:
        topic_id: the broker's own id: another one once the topic is deleted and made again. None where it gives none.
        partitions: how many the topic has.
        settings: the topic's settings with their values, defaults included; empty where the broker does not tell them.
    """

    topic_id: str | None
    partitions: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def cleanup(self) -> str:
        """The value of cleanup.policy, or "" where it is not known."""
        return self.settings.get("cleanup.policy", "")

    @property
    def compacted(self) -> bool:
        return "compact" in self.cleanup

    @property
    def expires(self) -> bool:
        """Whether records are deleted by their age or by the size of the topic."""
        limits = (self.settings.get(name, _UNLIMITED) for name in ("retention.ms", "retention.bytes"))
        return "delete" in self.cleanup and any(limit != _UNLIMITED for limit in limits)


def describe_topics(admin: KafkaAdminClient, names: Sequence[str]) -> dict[str, TopicState | None]:
    """Asks the broker about topics.

    Returns:
        The state of each, and None for one that does not exist. A topic is left out where the broker does not say.

    Raises:
        kafka.errors.KafkaError: the broker is away.
    """
    found: dict[str, TopicState | None] = {}
    described = {topic["name"]: topic for topic in admin.describe_topics(list(names))}
    settings = _settings(admin, [name for name in names if name in described])
    for name, topic in described.items():
        error = for_code(topic["error_code"])
        if error is NoError:
            found[name] = TopicState(topic["topic_id"], len(topic["partitions"]), settings.get(name, {}))
        elif error in (UnknownTopicOrPartitionError, UnknownTopicIdError):
            found[name] = None
    return found


def _settings(admin: KafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The settings of topics; those that the broker does not tell this client, for want of a right, are left out."""
    try:
        answer = admin.describe_configs([ConfigResource("TOPIC", name) for name in names], config_filter="all")
    except KafkaError:
        return {}
    return {
        name: {key: str(setting["value"]) for key, setting in settings.items()}
        for name, settings in answer.get("topic", {}).items()
    }


def topic_problems(config: KafkaConfig, topics: Mapping[str, TopicState | None]) -> Iterator[str]:
    """One line for each thing that will lose data or keep engines from sharing; each names the remedy."""
    items, events = topics.get(config.items_topic), topics.get(config.events_topic)
    if items is not None and items.cleanup and (items.expires or not items.compacted):
        what = "deletes catalog records by age or size" if items.expires else "keeps every old record of each item"
        yield (
            f"topic {config.items_topic!r} must be compacted and nothing else, its cleanup.policy is {items.cleanup}:"
            f" Kafka {what}; set cleanup.policy=compact for it, and send the catalog again if records are gone"
        )
    if events is not None and events.compacted:
        yield (
            f"topic {config.events_topic!r} must not be compacted, its cleanup.policy is {events.cleanup}: Kafka keeps"
            " only the newest event of each user; set cleanup.policy=delete for it, with the retention that you want"
        )
    if events is not None and events.partitions < config.events_partitions:
        had = f"{events.partitions} partition" + ("" if events.partitions == 1 else "s")
        yield (
            f"topic {config.events_topic!r} has {had}, kafka.events_partitions wants {config.events_partitions}: stop"
            f" every engine and add partitions, or set kafka.events_partitions={events.partitions}"
        )
    if config.dead_letters_topic in topics:
        letters = topics[config.dead_letters_topic]
        if letters is None:
            yield (
                f"topic {config.dead_letters_topic!r} does not exist: records that break a rule can't be kept in it;"
                " make it, or restart an engine, which does"
            )
        elif letters.compacted:
            yield (
                f"topic {config.dead_letters_topic!r} must not be compacted, its cleanup.policy is {letters.cleanup}:"
                " Kafka keeps only the newest letter of each key; set cleanup.policy=delete for it"
            )


def topic_change(name: str, had: TopicState, now: TopicState | None) -> str | None:
    """Why a topic can't be read on as it was begun; None where it can."""
    if now is None:
        return (
            f"topic {name!r} was deleted while it was read: make it again, or start again, which makes it empty;"
            " snapshots of the old topic do not fit a new one"
        )
    if had.topic_id and now.topic_id and had.topic_id != now.topic_id:
        return (
            f"topic {name!r} was deleted and made again while it was read (its id was {had.topic_id} and is"
            f" {now.topic_id}): start again to read the new one; snapshots of the old topic do not fit it"
        )
    return None
