"""Answers that are far longer than was asked for, as kafka-python's own classes write and read them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.consumer import FetchResponse
from kafka.protocol.frame import KafkaBytes

from engine.events.answer_limit import AnswerLimit
from engine.events.fetch_answer import VERSIONS, MalformedAnswer
from tests.engine.events.batches import batch_of

Batches = Mapping[tuple[str, int], Sequence[bytes]]
MAX_BYTES = 4096
NUMBER = 7
_BESIDES = 100  # bytes of an answer with one partition that are no records


def answer(version: int, batches: Batches, number: int = NUMBER, aborted: int = 0) -> bytes:
    """The broker's answer to a fetch, with the length before it."""
    kind = FetchResponse.FetchableTopicResponse
    transactions = [kind.PartitionData.AbortedTransaction(producer_id=5, first_offset=n) for n in range(aborted)]
    topics: dict[str, list[object]] = {}
    for (topic, partition), records in batches.items():
        data = kind.PartitionData(
            partition_index=partition,
            error_code=0,
            high_watermark=1000,
            last_stable_offset=900,
            log_start_offset=3,
            aborted_transactions=transactions or None,
            preferred_read_replica=-1,
            records=b"".join(records) or None,
        )
        topics.setdefault(topic, []).append(data)
    responses = [kind(topic=topic, partitions=parts) for topic, parts in topics.items()]
    response = FetchResponse[version](throttle_time_ms=0, error_code=0, session_id=0, responses=responses)
    response.with_header(correlation_id=number)
    return bytes(response.encode(framed=True, header=True))


def read(frame: bytes, version: int) -> dict[tuple[str, int], bytes]:
    """The records that kafka-python finds in an answer."""
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    data = KafkaBytes(len(frame) - 4)
    data.write(frame[4:])
    data.seek(0)
    kind = FetchResponse[version]
    kind.parse_header(data)
    response = kind.decode(data)
    assert data.tell() == len(frame) - 4
    found = {}
    for topic in response.responses:
        for part in topic.partitions:
            assert (part.high_watermark, part.last_stable_offset) == (1000, 900)
            found[topic.topic, part.partition_index] = part.records or b""
    return found


class Connection:
    """A limit, and what it reports."""

    def __init__(self, version: int | None) -> None:
        self.reported: list[tuple[int, int]] = []
        self._limit = AnswerLimit(MAX_BYTES, lambda number: version, lambda *sizes: self.reported.append(sizes))

    def feed(self, data: bytes, step: int = 1 << 30) -> bytes:
        return b"".join(self._limit.feed(data[at : at + step]) for at in range(0, len(data), step))


def batches(count: int, size: int) -> list[bytes]:
    return [bytes(batch_of([(None, bytes([n % 256]) * size)], base_offset=n)) for n in range(count)]


def records_kept(version: int, sent: Batches, step: int = 1 << 30) -> dict[tuple[str, int], bytes]:
    return read(Connection(version).feed(answer(version, sent), step), version)


LONG: Batches = {
    ("events", 0): batches(20, 300),
    ("events", 1): batches(20, 300),
    ("items", 0): batches(20, 300),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("step", [7, 1000, 1 << 30])
def test_the_beginning_of_a_long_answer_is_one_of_its_own(version: int, step: int) -> None:
    connection, sent = Connection(version), answer(version, LONG)
    frame = connection.feed(sent, step)
    kept = read(frame, version)
    # kafka-python takes an answer for invalid that says nothing of a partition.
    assert list(kept) == list(LONG)
    assert (kept["events", 1], kept["items", 0]) == (b"", b"")
    assert b"".join(LONG["events", 0]).startswith(kept["events", 0])
    assert MAX_BYTES - _BESIDES < len(kept["events", 0]) <= MAX_BYTES
    assert connection.reported == [(len(sent) - 4, len(frame) - 4)]


@pytest.mark.parametrize("version", VERSIONS)
def test_partitions_that_are_whole_stay_whole_beside_one_that_is_cut(version: int) -> None:
    sent = {("a", 0): batches(2, 200), ("a", 1): [], ("b", 0): batches(1, 500), ("b", 1): batches(60, 300)}
    kept = records_kept(version, sent)
    assert [kept["a", 0], kept["a", 1], kept["b", 0]] == [b"".join(sent[p]) for p in (("a", 0), ("a", 1), ("b", 0))]
    assert 0 < len(kept["b", 1]) < len(b"".join(sent["b", 1]))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_partition_has_no_records_rather_than_a_part_of_its_first_batch(version: int) -> None:
    """A reader takes records that begin with half a batch for damage."""
    kept = records_kept(version, {("t", 0): batches(10, 300), ("t", 1): batches(40, 900), ("t", 2): batches(1, 10)})
    assert kept["t", 0] != b""
    assert (kept["t", 1], kept["t", 2]) == (b"", b"")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("step", [1000, 1 << 30])
def test_the_first_batch_is_kept_whatever_its_size(version: int, step: int) -> None:
    first = batches(1, 3 * MAX_BYTES)
    kept = records_kept(version, {("t", 0): first + batches(100, 300)}, step)
    assert kept["t", 0].startswith(first[0])
    assert len(kept["t", 0]) <= len(first[0]) + MAX_BYTES


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_that_is_long_for_its_first_batch_alone_is_passed_on_as_it_is(version: int) -> None:
    """Apache Kafka answers so, since a consumer could not read on otherwise."""
    connection = Connection(version)
    sent = answer(version, {("t", 0): batches(1, 5 * MAX_BYTES), ("t", 1): batches(3, 300)})
    assert connection.feed(sent, 500) == sent
    assert connection.reported == []


@pytest.mark.parametrize("at", range(8))
def test_answers_without_a_body_pass_wherever_the_pieces_end(at: int) -> None:
    connection, sent = Connection(None), struct.pack(">iiiiii", 4, 1, 4, 2, 4, 3)
    assert connection.feed(sent[:at]) + connection.feed(sent[at:], 8) == sent


@pytest.mark.parametrize("version", VERSIONS)
def test_the_transactions_that_were_given_up_are_kept_whatever_their_number(version: int) -> None:
    sent = answer(version, LONG, aborted=MAX_BYTES // 16)
    passed = Connection(version).feed(sent, 1000)
    assert list(read(passed, version)) == list(LONG)
    assert len(passed) > 3 * MAX_BYTES


@pytest.mark.parametrize("version", [4, 12])
def test_bytes_that_are_no_answer_are_refused(version: int) -> None:
    sent = answer(version, LONG)
    with pytest.raises(MalformedAnswer):
        Connection(version).feed(sent[:8] + b"\xff" * (len(sent) - 8) if version == 12 else _too_long(sent))


def _too_long(sent: bytes) -> bytes:
    """With three bytes behind the last field that belong to the same answer."""
    return (len(sent) - 1).to_bytes(4, "big") + sent[4:] + b"abc"


def test_answers_to_other_requests_are_passed_on_whatever_their_size() -> None:
    connection = Connection(None)
    sent = answer(12, LONG) * 2
    assert connection.feed(sent, 700) == sent


def test_answers_around_a_long_one_are_not_touched() -> None:
    short = answer(11, {("t", 0): batches(2, 100)}, number=8)
    connection = Connection(11)
    passed = connection.feed(short + answer(11, LONG) + short + answer(11, LONG) + short)
    assert passed.startswith(short)
    assert passed.endswith(short)
    assert passed.count(short) == 3
    assert len(connection.reported) == 2


def test_an_answer_of_more_bytes_than_the_protocol_can_say_is_reported() -> None:
    connection = Connection(12)
    sent = (-5).to_bytes(4, "big", signed=True) + NUMBER.to_bytes(4, "big")
    assert connection.feed(sent) == sent
    assert connection.reported == [(-5, 0)]


@given(
    version=st.sampled_from(VERSIONS),
    sizes=st.lists(st.lists(st.integers(0, 900), max_size=12), min_size=1, max_size=5),
    step=st.sampled_from([50, 700, 1 << 20]),
)
def test_whatever_the_answer_its_beginning_is_kept_within_the_limit(
    version: int, sizes: list[list[int]], step: int
) -> None:
    sent: Batches = {
        ("t", number): [bytes(batch_of([(None, bytes(size))], base_offset=at)) for at, size in enumerate(part)]
        for number, part in enumerate(sizes)
    }
    frame = answer(version, sent)
    passed = Connection(version).feed(frame, step)
    kept = read(passed, version)
    first = next(iter(chain.from_iterable(sent.values())), b"")
    assert len(passed) - 4 <= MAX_BYTES + len(first) + _BESIDES * len(sent)
    assert list(kept) == list(sent)
    for partition, records in kept.items():
        whole = b"".join(sent[partition])
        assert whole.startswith(records)
        assert records == b"" or len(records) >= len(sent[partition][0])
    assert not first or any(kept.values())  # A client would ask for the same for ever.
    if len(frame) - 4 <= MAX_BYTES:
        assert passed == frame
