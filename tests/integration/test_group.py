"""Sources that share the events topic by membership in a group, against a real broker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from ousel.v1 import catalog_pb2, event_pb2

from deploy.local.brokers import Broker
from deploy.local.kafka import ApacheKafka
from engine.config import KafkaConfig
from engine.events.batch import Record
from engine.events.connection import connection_settings
from engine.events.consumer_settings import consumer_settings
from engine.events.kafka import KafkaSource
from engine.events.log_consumer import LogConsumer
from engine.events.producer import EventProducer
from engine.events.sharing import Membership
from engine.events.source import Assignment, Partition, start_at_beginning
from engine.events.topics import ensure_topics
from tests.integration.engines import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("KAFKA_HOME"),
        reason="the embedded broker at times leaves a group unanswered for 30 s, and never gives a silent member up",
    ),
]

DEADLINE_S = 30.0
ROOT = Path(__file__).parents[2]


class Reader:
    """Does what an engine does: starts every assignment where it left off, and polls."""

    def __init__(self, config: KafkaConfig) -> None:
        self.config = config
        self.source = KafkaSource(config)
        self.assignment: Assignment | None = None
        self.assignments = 0
        self.positions: dict[Partition, int] = {}
        self.records: list[Record] = []

    def step(self) -> None:
        assignment = self.source.assignment()
        if assignment is not self.assignment:
            self.assignment = assignment
            if assignment is not None:
                self.assignments += 1
                self.source.start(self.positions)
        records = self.source.poll(0.02)
        self.records += records
        self.positions |= {(r.topic, r.partition): r.offset + 1 for r in records}

    @property
    def events(self) -> set[int]:
        """The partitions of the events topic that it has now."""
        topic = self.config.events_topic
        return {number for name, number in (self.assignment.partitions if self.assignment else ()) if name == topic}

    def close(self) -> None:
        self.source.close()


def run(condition: Callable[[], bool], *readers: Reader) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, [reader.assignment for reader in readers]
        for reader in readers:
            reader.step()


def track(config: KafkaConfig, count: int, first: int = 0) -> None:
    with closing(EventProducer(config)) as producer:
        for future in [
            producer.send_event(event_pb2.Event(event_id=str(i), user_id=f"u{i % 20}", item_id="i"))
            for i in range(first, first + count)
        ]:
            future.result(DEADLINE_S)


def event_ids(*readers: Reader) -> Counter[str]:
    topic = readers[0].config.events_topic
    return Counter(
        event_pb2.Event.FromString(r.value or b"").event_id
        for reader in readers
        for r in reader.records
        if r.topic == topic
    )


def committed(config: KafkaConfig) -> dict[int, int | None]:
    """What a plain consumer of the group would go on from, by partition of the events topic."""
    with closing(KafkaConsumer(**connection_settings(config), group_id=config.group_id)) as consumer:
        return {p: consumer.committed(TopicPartition(config.events_topic, p)) for p in range(3)}


@pytest.fixture
def config(kafka_config: KafkaConfig) -> KafkaConfig:
    return kafka_config.model_copy(update={"share": True})


@pytest.fixture
def member(config: KafkaConfig) -> Iterator[Callable[[], Reader]]:
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(Reader(config)))


def test_one_member_has_everything(config: KafkaConfig, member: Callable[[], Reader]) -> None:
    track(config, 60)
    one = member()
    run(lambda: one.source.caught_up(), one)
    assert one.events == {0, 1, 2}
    assert one.assignment is not None
    assert one.assignment.totals == {config.events_topic: 3, config.items_topic: 1}
    assert sum(r.end for (topic, _), r in one.assignment.partitions.items() if topic == config.events_topic) == 60
    assert event_ids(one) == Counter(map(str, range(60)))
    assert one.source.lag() == 0


def test_a_join_whose_reason_goes_while_it_is_under_way_is_carried_through(config: KafkaConfig) -> None:
    topic = config.events_topic
    dealt: list[Collection[TopicPartition]] = []
    with closing(LogConsumer(**consumer_settings(config))) as consumer:

        def take(partitions: Collection[TopicPartition] | None) -> None:
            if partitions is not None:
                consumer.pause(*partitions)
                for partition in partitions:
                    consumer.seek(partition, 0)
                dealt.append(partitions)

        def dealt_after(times: int) -> bool:
            consumer.poll(timeout_ms=50)
            return len(dealt) > times

        consumer.subscribe([topic, config.items_topic], listener=Membership(take))
        coordinator = consumer._coordinator

        def joining() -> bool:
            # The metadata of the assignment seems to be another than today's, until this member has dealt anew.
            coordinator._assignment_snapshot = {}
            consumer.poll(timeout_ms=1)
            return coordinator._join_task is not None

        until(lambda: dealt_after(0) and not coordinator.need_rejoin())
        until(joining)
        before, join = len(dealt), coordinator._join_task
        until(lambda: join.is_done)
        assert coordinator._assignment_snapshot == coordinator._metadata_snapshot
        until(lambda: dealt_after(before))
        assert {p.partition for p in dealt[-1] if p.topic == topic} == {0, 1, 2}


def test_two_members_share_the_events_and_both_have_the_catalog(
    config: KafkaConfig, member: Callable[[], Reader]
) -> None:
    with closing(EventProducer(config)) as producer:
        producer.send_item(catalog_pb2.Item(item_id="i", title="t")).result(DEADLINE_S)
    one = member()
    run(lambda: one.events == {0, 1, 2}, one)
    two = member()
    run(lambda: bool(one.events and two.events), one, two)
    assert one.events | two.events == {0, 1, 2}
    assert not one.events & two.events
    track(config, 90)
    run(lambda: len(event_ids(one, two)) == 90, one, two)
    assert set(event_ids(one, two).values()) == {1}
    for reader in (one, two):
        assert [r.key for r in reader.records if r.topic == config.items_topic] == [b"i"]
        assert {r.partition for r in reader.records if r.topic == config.events_topic} == reader.events


def test_who_stays_gets_the_partitions_of_who_leaves(config: KafkaConfig, member: Callable[[], Reader]) -> None:
    one, two = member(), member()
    run(lambda: bool(one.events and two.events), one, two)
    before = one.assignment
    track(config, 60)
    run(lambda: len(event_ids(one, two)) == 60, one, two)
    two.close()
    run(lambda: one.events == {0, 1, 2}, one)
    assert one.assignment is not before
    # What it had is read on, what arrived is read from its beginning.
    run(lambda: one.source.caught_up(), one)
    assert event_ids(one) == Counter(map(str, range(60)))


def test_nothing_comes_between_a_new_assignment_and_its_start(
    config: KafkaConfig, member: Callable[[], Reader]
) -> None:
    track(config, 60)
    one = member()
    run(lambda: one.source.caught_up(), one)
    one.source.start({})  # from the beginning again; all of it is read ahead, and nothing polled
    deadline = time.monotonic() + DEADLINE_S
    two = member()
    while one.source.assignment() in (one.assignment, None):
        two.step()
        assert time.monotonic() < deadline
    track(config, 30, first=60)
    run(lambda: bool(two.events) and two.source.lag() == 0, two)
    assert one.source.poll(0) == []
    assert not one.source.caught_up()
    run(lambda: len(event_ids(one, two)) == 90, one, two)


def test_a_start_for_an_assignment_that_is_gone_changes_nothing(
    config: KafkaConfig, member: Callable[[], Reader]
) -> None:
    one = member()
    run(lambda: one.events == {0, 1, 2}, one)
    two = member()
    run(lambda: bool(two.events), two)  # `one` joins again by itself, while its reader is busy
    one.source.start({(config.events_topic, 0): 10**6})  # as of the old one, it would be an error now
    assert not one.source.caught_up()
    run(lambda: bool(one.events) and one.source.caught_up(), one, two)


def test_a_member_that_is_killed_loses_its_partitions(config: KafkaConfig, member: Callable[[], Reader]) -> None:
    password = config.sasl_password.get_secret_value() if config.sasl_password else None
    code = f"""
import sys
from engine.config import KafkaConfig
from engine.events.kafka import KafkaSource
from engine.events.source import start_at_beginning
fields = {config.model_dump(mode="json")!r} | {{"sasl_password": {password!r}}}
source = KafkaSource(KafkaConfig(**fields))
while not start_at_beginning(source):
    source.poll(0.05)
print("started", flush=True)
sys.stdin.read()
"""
    one = member()
    run(lambda: one.events == {0, 1, 2}, one)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        run(lambda: len(one.events) < 3, one)
        assert other.stdout is not None
        run(lambda: 0 < len(one.events) < 3, one)
        assert other.stdout.readline() == "started\n"
        other.kill()
    run(lambda: one.events == {0, 1, 2}, one)


def test_commits_are_there_for_who_comes_next(config: KafkaConfig, member: Callable[[], Reader]) -> None:
    track(config, 60)
    one = member()
    run(lambda: one.source.caught_up(), one)
    assert committed(config) == {0: None, 1: None, 2: None}
    positions = {p: at for (topic, p), at in one.positions.items() if topic == config.events_topic}
    one.source.commit(one.positions | {("elsewhere", 0): 5})
    run(lambda: committed(config) == {0: None, 1: None, 2: None} | positions, one)


def test_a_last_commit_is_not_lost_by_closing(config: KafkaConfig, member: Callable[[], Reader]) -> None:
    one = member()
    run(lambda: one.events == {0, 1, 2}, one)
    one.source.commit({(config.events_topic, p): 7 + p for p in range(3)})
    one.close()
    assert committed(config) == {0: 7, 1: 8, 2: 9}


def test_without_sharing_positions_are_noted_too(kafka_config: KafkaConfig) -> None:
    with closing(KafkaSource(kafka_config)) as one, closing(KafkaSource(kafka_config)) as two:
        for source in (one, two):
            assert start_at_beginning(source) is not None
        one.commit({(kafka_config.events_topic, 1): 5})
        deadline = time.monotonic() + DEADLINE_S
        while committed(kafka_config)[1] != 5:
            assert time.monotonic() < deadline
        two.commit({(kafka_config.events_topic, 1): 6})
    assert committed(kafka_config) == {0: None, 1: 6, 2: None}


def test_a_group_outlives_its_broker(
    start: Callable[..., Broker], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start(tmp_path) as first:
        config = KafkaConfig(**first.client_settings(), share=True, session_timeout_ms=6000, request_timeout_ms=5000)
        ensure_topics(config)
        track(config, 30)
        one = Reader(config)
        run(lambda: one.source.caught_up(), one)
        # The embedded broker's last seconds are lost with a kill.
        first.kill() if isinstance(first, ApacheKafka) else first.stop()
        run(lambda: "reading goes on" in caplog.text, one)
        one.source.commit(one.positions)
        with start(tmp_path, first.port):
            track(config, 30, first=30)
            run(lambda: len(event_ids(one)) == 60, one)
            one.close()
    assert set(event_ids(one).values()) == {1}
