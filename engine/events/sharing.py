"""How engines of one group share the events topic while each of them reads the whole catalog."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription

_VERSION = 0  # of Kafka's consumer protocol


class SharedEvents(AbstractPartitionAssignor):
    """Deals the partitions of each topic out in turn, except those of one topic that every member gets whole.

    Args:
        whole: the topic that every member reads, the catalog.
    """

    name = "ousel"  # members of one group must agree on it

    def __init__(self, whole: str) -> None:
        self._whole = whole

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, ConsumerProtocolAssignment]:
        member_ids = sorted(member.member_id for member in members)
        topics = sorted({topic for member in members for topic in member.metadata.topics})
        assigned: dict[str, list[tuple[str, list[int]]]] = {member_id: [] for member_id in member_ids}
        for topic in topics:
            partitions = sorted(cluster.partitions_for_topic(topic) or ())
            for position, member_id in enumerate(member_ids):
                share = partitions if topic == self._whole else partitions[position :: len(member_ids)]
                assigned[member_id].append((topic, share))
        return {id_: ConsumerProtocolAssignment(_VERSION, share, b"") for id_, share in assigned.items()}

    def metadata(self, topics: Collection[str]) -> ConsumerProtocolSubscription:
        return ConsumerProtocolSubscription(_VERSION, sorted(topics), b"")

    def on_assignment(self, assignment: Any, generation: int) -> None: ...


class Membership(ConsumerRebalanceListener):
    """Passes on what the group decides. It runs within the consumer's `poll`, where long work would cost heartbeats.

    Args:
        changed: gets the partitions assigned, or None where all were taken back.
    """

    def __init__(self, changed: Callable[[Collection[TopicPartition] | None], None]) -> None:
        self._changed = changed

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._changed(None)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._changed(None)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._changed(assigned)
