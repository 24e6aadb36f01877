"""The run that `benchmarks.recovery` compares with: it reads the same log in this process, and never stops."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from benchmarks.recovery_writer import NUMBER, Acknowledged
from engine.config import Config
from engine.events.batch import Record
from engine.events.codec import Decoder
from engine.events.connection import connection_settings
from engine.events.source import Partition
from engine.state.copying import StateCopy
from engine.state.digest import StateDigest, state_digest
from engine.state.state import State

_BATCH = 1000
_TIMEOUT_S = 60.0
_NO_EVENT = -1


class Straight:
    """Folds the log from its begin, further with every call, by a plain consumer and in batches of its own.

    Attributes:
        due: by partition of the events topic, how many events the log held so far that are to be folded. Counted by the
            writer's numbers, each number once, so neither the decoder nor the fold has a say in it.
    """

    def __init__(self, config: Config, partitions: int) -> None:
        self._config = config
        topic = config.kafka.events_topic
        self.due = dict.fromkeys(range(partitions), 0)
        self._seen: set[int] = set()
        self._number_at = {partition: array("q") for partition in range(partitions)}  # by offset
        self._lost: set[int] = set()
        self._pending: list[Acknowledged] = []  # lie further on in the log
        self._decoder = Decoder(config.kafka, config.events, config.state.features_dim)
        self._state = State(config.state, config.events, events_topic=topic, partitions=partitions)
        for partition in range(partitions):
            self._state.open(partition, self._state.new_slice())
        self._consumer = KafkaConsumer(
            **connection_settings(config.kafka),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        all_ = [TopicPartition(topic, at) for at in range(partitions)] + [TopicPartition(config.kafka.items_topic, 0)]
        self._consumer.assign(all_)
        self._consumer.seek_to_beginning(*all_)
        self._held: dict[Partition, deque[Any]] = {(p.topic, p.partition): deque() for p in all_}  # read, not folded
        self._read = dict.fromkeys(self._held, 0)  # next offset to read
        self._ends = dict.fromkeys(self._held, 0)  # one past the last record that was read

    def digest(self, positions: Mapping[Partition, int]) -> StateDigest:
        """Folds on up to exactly these positions, and says what the state is there.

        Raises:
            TimeoutError: the log does not hold as much.
        """
        self._read_up_to(positions)
        records = [
            queue.popleft()
            for partition, queue in self._held.items()
            for _ in range(sum(record.offset < positions.get(partition, 0) for record in queue))
        ]
        for record in records:
            self._count(record)
        for first in range(0, len(records), _BATCH):
            self._state.fold(self._decoder.decode([_plain(one) for one in records[first : first + _BATCH]]))
        copy = StateCopy(self._state, 2**30)
        while not copy.step():
            pass
        return state_digest(copy.saved(), self._config.state, self._config.events)

    def lost(self, acknowledged: list[Acknowledged]) -> int:
        """How many events, these and all before, do not lie in the log where the broker has said; as far as folded."""
        open_, self._pending = [*self._pending, *acknowledged], []
        for one in open_:
            numbers = self._number_at[one.partition]
            if one.offset >= len(numbers):
                self._pending.append(one)
            elif numbers[one.offset] != one.number:
                self._lost.add(one.number)
        return len(self._lost)

    @property
    def pending(self) -> int:
        """Acknowledged events that lie further on in the log than was folded, or not in it at all."""
        return len(self._pending)

    def ends(self) -> dict[Partition, int]:
        """One past the last record of every partition that may be read now, markers of transactions left aside."""
        stable = self._consumer.end_offsets([TopicPartition(*partition) for partition in self._held])
        self._read_up_to({(partition.topic, partition.partition): end for partition, end in stable.items()})
        return dict(self._ends)

    def close(self) -> None:
        self._consumer.close(timeout_ms=1000)

    def _read_up_to(self, positions: Mapping[Partition, int]) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while short := {p: at for p, at in positions.items() if self._read[p] < at}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the log does not hold {short}, a consumer has come to {self._read}")
            for partition, records in self._consumer.poll(timeout_ms=200).items():
                self._held[partition.topic, partition.partition].extend(records)
                self._ends[partition.topic, partition.partition] = records[-1].offset + 1
            for topic, number in self._read:
                self._read[topic, number] = self._consumer.position(TopicPartition(topic, number))

    def _count(self, record: Any) -> None:
        if record.topic != self._config.kafka.events_topic:
            return
        number = int(dict(record.headers).get(NUMBER, _NO_EVENT))
        numbers = self._number_at[record.partition]
        numbers.extend([_NO_EVENT] * (record.offset - len(numbers)))
        numbers.append(number)
        if number != _NO_EVENT and number not in self._seen:
            self._seen.add(number)
            self.due[record.partition] += 1


def _plain(record: Any) -> Record:
    return Record(record.topic, record.partition, record.offset, record.timestamp, record.key, record.value)
