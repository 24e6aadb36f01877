from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment

from engine.events.sharing import SharedEvents


class Member(NamedTuple):
    member_id: str
    metadata: Any


class Cluster:
    def __init__(self, **topics: int) -> None:
        self.topics = topics

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.topics[topic])) if topic in self.topics else None


def deal(cluster: Cluster, members: int) -> list[set[tuple[str, int]]]:
    """What each member gets, by way of the bytes that the group carries."""
    assignor = SharedEvents(whole="items")
    joined = [Member(f"m{n}", assignor.metadata({"events", "items"})) for n in range(members)]
    dealt = assignor.assign(cluster, joined)
    assert list(dealt) == [member.member_id for member in joined]
    carried = [ConsumerProtocolAssignment.decode(dealt[member.member_id].encode()) for member in joined]
    return [{(p.topic, p.partition) for p in each.partitions()} for each in carried]


@given(partitions=st.integers(0, 20), members=st.integers(1, 8))
def test_every_partition_has_one_owner_and_every_member_the_catalog(partitions: int, members: int) -> None:
    dealt = deal(Cluster(events=partitions, items=2), members)
    events = [{p for topic, p in each if topic == "events"} for each in dealt]
    assert sorted(p for each in events for p in each) == list(range(partitions))
    assert max(map(len, events)) - min(map(len, events)) <= 1
    for each in dealt:
        assert {p for topic, p in each if topic == "items"} == {0, 1}


@pytest.mark.parametrize("topics", [{"events": 2}, {}])
def test_a_topic_that_is_gone_is_dealt_out_to_nobody(topics: dict[str, int]) -> None:
    assert {topic for each in deal(Cluster(**topics), 2) for topic, _ in each} == set(topics)
