"""What a fetch brought is read whatever is in it: in bounded steps, and with a flaw in place of what is damaged."""

from __future__ import annotations

import struct
import sys
import tracemalloc
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition

from deploy.local.raw_batches import signed
from engine.events.partition_reader import FetchedRecord, PartitionAnswer, PartitionReader, ReadLimits, Refetches
from tests.engine.events.batches import CODECS, HEADER_BYTES, KeyValue, batch_of, marker

PARTITION = TopicPartition("t", 3)
COMPRESSED = [codec for codec in CODECS if codec != "none"]
MISSING = {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"}
blobs = st.none() | st.binary(max_size=40)
blobs |= st.binary(min_size=60, max_size=60).map(lambda data: data[:1] * 60)  # kafka-python leaves others as they are
pairs = st.lists(st.tuples(blobs, blobs), min_size=1, max_size=8)


class Fetch:
    """Fetches from a log in memory, as the consumer does, until nothing more comes."""

    def __init__(
        self,
        log: bytes,
        *,
        position: int = 0,
        end: int = 1 << 40,
        aborted: Sequence[tuple[int, int]] = (),
        room_bytes: int = 1 << 20,
        max_record_bytes: int = 1 << 20,
    ) -> None:
        self.log = log
        self.end = end
        self.position = position
        self.aborted = [SimpleNamespace(producer_id=id_, first_offset=first) for id_, first in aborted]
        self.room_bytes = room_bytes
        self.limits = ReadLimits(max_record_bytes)
        self.refetches = Refetches()
        self.holds: list[tuple[int, str]] = []
        self.fetches = 0

    def answer(self) -> bytes:
        """What the broker sends: from the batch on that holds the position."""
        self.fetches += 1
        at = 0
        while at + HEADER_BYTES <= len(self.log):
            base, length = struct.unpack_from(">qi", self.log, at)
            delta = struct.unpack_from(">i", self.log, at + 23)[0] if self.log[at + 16] == 2 else 0
            if self.position <= base + max(0, delta):
                break
            at += 12 + length
        return self.log[at:]

    def poll(self, max_records: int = 1000) -> list[list[FetchedRecord]]:
        """The parts that one answer is taken in."""
        reader = PartitionReader(
            PARTITION,
            PartitionAnswer(self.position, self.answer(), self.aborted, self.end),
            limits=self.limits,
            refetches=self.refetches,
            hold=lambda _, offset, reason: self.holds.append((offset, reason)),
            on_drain=lambda _: None,
        )
        parts = []
        while reader:
            self.limits.room_bytes = self.room_bytes
            parts.append(reader.take(max_records))
            assert self.position <= reader.next_fetch_offset
            self.position = reader.next_fetch_offset
        return parts

    def all(self, max_records: int = 1000) -> list[FetchedRecord]:
        """Everything up to the end, or to where the partition is held."""
        found = []
        before = None
        while not self.holds and (self.position, self.fetches) != before and self.answer():
            before = self.position, self.fetches + 3  # a batch may be fetched three times
            for _ in range(3):
                found += [record for part in self.poll(max_records) for record in part]
        return found


def content(records: Sequence[FetchedRecord]) -> list[KeyValue]:
    return [(record.key, record.value) for record in records]


@settings(deadline=None)
@given(st.lists(st.tuples(pairs, st.sampled_from(sorted(CODECS))), max_size=4), st.integers(1, 5))
def test_every_codec_is_read_in_parts_of_any_size(batches: list[tuple[list[KeyValue], str]], part: int) -> None:
    log, offset = b"", 0
    for content_, codec in batches:
        log += batch_of(content_, codec, base_offset=offset)
        offset += len(content_)
    fetch = Fetch(log)
    parts = fetch.poll(part) if log else []
    found = [record for one in parts for record in one]
    assert content(found) == [pair for content_, _ in batches for pair in content_]
    assert [record.offset for record in found] == list(range(offset))
    assert all(len(one) <= part for one in parts)
    assert fetch.position == offset


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_fetch_within_a_batch_returns_what_follows(codec: str) -> None:
    log = batch_of([(None, b"%d" % n) for n in range(9)], codec, base_offset=100)
    assert [record.offset for record in Fetch(bytes(log), position=104).all()] == list(range(104, 109))


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_a_batch_that_inflates_is_unpacked_in_bounded_steps(codec: str) -> None:
    records, size, room = 60, 900_000, 4 << 20
    log = bytes(batch_of([(None, bytes([n]) * size) for n in range(records)], codec))
    assert len(log) < records * size / 15
    fetch = Fetch(log, room_bytes=room, max_record_bytes=1 << 20)
    most = 0
    tracemalloc.start()
    try:
        offsets = []
        reader = PartitionReader(
            PARTITION,
            PartitionAnswer(0, log, (), records),
            limits=fetch.limits,
            refetches=fetch.refetches,
            hold=lambda *_: pytest.fail("it is held"),
            on_drain=lambda _: None,
        )
        while reader:
            fetch.limits.room_bytes = room
            part = reader.take(1000)
            most = max(most, sum(len(record.value or b"") for record in part))
            offsets += [record.offset for record in part]
            assert all(record.value == bytes([record.offset]) * size for record in part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert offsets == list(range(records))
    assert most <= room + size
    # What a poll returned, what is unpacked ahead of it, and copies on the way; snappy's blocks are 32 kB here.
    assert peak < 4 * room < records * size / 3


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("key", [b"k", None])
def test_a_record_that_is_too_large_is_passed_over_with_its_key(codec: str, key: bytes | None) -> None:
    log = bytes(batch_of([(None, b"a"), (key, b"x" * 300_000), (None, b"b")], codec))
    found = Fetch(log, max_record_bytes=100_000).all()
    assert content(found) == [(None, b"a"), (key, None), (None, b"b")]
    flaw = found[1].flaw
    assert flaw is not None
    assert (flaw.last_offset, flaw.records) == (1, 1)
    assert "a record of 300" in flaw.reason and "kafka.max_record_bytes allows 100000" in flaw.reason


def test_what_is_passed_over_for_long_gives_others_a_turn() -> None:
    log = bytes(batch_of([(None, b"x" * (40 << 20)), (None, b"b")], "zstd"))
    parts = Fetch(log, max_record_bytes=1000).poll()
    assert [] in parts
    assert [record.offset for part in parts for record in part] == [0, 1]


@pytest.mark.parametrize("codec", sorted(MISSING))
def test_a_codec_that_is_not_installed_holds_the_partition_and_names_the_package(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = bytes(
        batch_of([(None, b"a")]) + batch_of([(None, b"b" * 999)], codec, base_offset=1)
    )  # shorter ones stay as they are
    monkeypatch.setitem(sys.modules, {"snappy": "snappy", "lz4": "lz4.frame", "zstd": "zstandard"}[codec], None)
    fetch = Fetch(log)
    assert content(fetch.all()) == [(None, b"a")]
    assert fetch.position == 1
    assert {offset for offset, _ in fetch.holds} == {1}
    assert fetch.holds[0][1] == f"it is compressed with {codec}, install the package {MISSING[codec]} to read it"
    monkeypatch.undo()
    fetch.holds.clear()
    assert content(fetch.all()) == [(None, b"b" * 999)]


def test_a_batch_with_a_wrong_checksum_is_fetched_again_and_then_passed_over() -> None:
    damaged = batch_of([(None, b"b")] * 3, base_offset=2)
    damaged[-2] ^= 1
    log = bytes(batch_of([(None, b"a")] * 2) + damaged + batch_of([(None, b"c")], base_offset=5))
    fetch = Fetch(log)
    assert content([r for part in fetch.poll() for r in part]) == [(None, b"a")] * 2
    assert fetch.position == 2
    fetch.poll()
    assert fetch.position == 2
    found = fetch.all()
    assert content(found) == [(None, None), (None, b"c")]
    assert found[0].offset == 2
    assert found[0].flaw is not None
    assert found[0].flaw == (4, 3, "offsets 2 to 4 can't be read: a batch with a wrong checksum")
    assert not fetch.holds


def test_damage_on_the_way_leaves_no_trace() -> None:
    whole = bytes(batch_of([(None, b"a")] * 3, "gzip"))
    damaged = bytearray(whole)
    damaged[-2] ^= 1
    fetch = Fetch(bytes(damaged))
    assert fetch.poll() == [[]]
    fetch.log = whole
    assert content(fetch.all()) == [(None, b"a")] * 3


def test_where_a_damaged_batch_ends_is_told_by_the_batch_behind_it() -> None:
    damaged = batch_of([(None, b"b")] * 3)
    struct.pack_into(">i", damaged, 23, 1 << 20)  # the last offset: far behind the end
    fetch = Fetch(bytes(damaged + batch_of([(None, b"c")], base_offset=3)), end=4)
    found = fetch.all()
    assert content(found) == [(None, None), (None, b"c")]
    assert found[0].flaw is not None and found[0].flaw[:2] == (2, 3)
    alone = Fetch(bytes(damaged), end=3)
    assert alone.all() == []
    assert "its next batch is wrong, and where that ends is damaged too" in alone.holds[0][1]


@pytest.mark.parametrize("codec", COMPRESSED)
def test_compressed_data_that_is_cut_short_loses_only_the_rest_of_its_batch(codec: str) -> None:
    whole = batch_of([(None, bytes([n]) * 50_000) for n in range(4)], codec)
    cut = whole[: HEADER_BYTES + (len(whole) - HEADER_BYTES) // 2]
    struct.pack_into(">i", cut, 8, len(cut) - 12)
    fetch = Fetch(bytes(signed(cut) + batch_of([(None, b"c")], base_offset=4)))
    found = fetch.all()
    *good, flawed, last = found
    assert content(good) == [(None, bytes([n]) * 50_000) for n in range(len(good))]
    assert flawed.flaw is not None
    assert (flawed.offset, flawed.flaw.last_offset, flawed.flaw.records) == (len(good), 3, 4 - len(good))
    assert last.value == b"c"


def test_a_block_of_negative_length_ends_its_batch_alone() -> None:
    """kafka-python goes round for ever at such a block."""
    batch = batch_of([(None, b"a" * 100)], "snappy")
    struct.pack_into(">i", batch, HEADER_BYTES + 16, -4)
    (found,) = Fetch(bytes(signed(batch))).all()
    assert found.flaw is not None and "a block of -4 bytes" in found.flaw.reason


def test_a_block_that_would_inflate_beyond_its_bound_is_not_unpacked() -> None:
    import snappy

    batch = batch_of([(None, b"a")], "none")
    struct.pack_into(">h", batch, 21, CODECS["snappy"])
    batch[HEADER_BYTES:] = snappy.compress(bytes(70 << 20))
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    (found,) = Fetch(bytes(signed(batch))).all()
    assert found.flaw is not None and "a block of 73400320 bytes unpacked" in found.flaw.reason


def test_a_codec_that_kafka_has_not_is_a_damaged_batch() -> None:
    batch = batch_of([(None, b"a")])
    struct.pack_into(">h", batch, 21, 7)
    (found,) = Fetch(bytes(signed(batch))).all()
    assert found.flaw is not None and "codec must be one of 1 to 4, got 7" in found.flaw.reason


@pytest.mark.parametrize("problem", ["length", "magic", "short"])
def test_bytes_that_are_no_batch_are_fetched_again_and_then_hold_the_partition(problem: str) -> None:
    batch = batch_of([(None, b"a")])
    if problem == "length":
        struct.pack_into(">i", batch, 8, -5)
    elif problem == "magic":
        batch[16] = 0  # too short for that
        struct.pack_into(">i", batch, 8, 3)
    log = bytes(batch)[: 30 if problem == "short" else None]
    fetch = Fetch(log)
    fetch.answer = lambda: log  # type: ignore[method-assign]
    for _ in range(2):
        assert fetch.poll() == [[]]
        assert not fetch.holds
    fetch.poll()
    assert fetch.holds[0][0] == 0
    assert "the broker's answer is damaged" in fetch.holds[0][1]


def test_what_the_broker_cut_off_comes_with_the_next_answer() -> None:
    first, second = batch_of([(None, b"a")]), batch_of([(None, b"b" * 100)], base_offset=1)
    for cut in (5, 20, 70):
        fetch = Fetch(bytes(first + second[:cut]))
        assert [content(part) for part in fetch.poll()] == [[(None, b"a")]]
        assert (fetch.position, fetch.holds) == (1, [])


def test_only_committed_records_count_and_markers_are_passed() -> None:
    log = batch_of([(None, b"keep 0")], producer_id=7, transactional=True)
    log += batch_of([(None, b"drop 1"), (None, b"drop 2")], base_offset=1, producer_id=8, transactional=True)
    log += batch_of([(None, b"plain 3")], base_offset=3)
    log += marker(4, 8, commit=False)
    log += batch_of([(None, b"keep 5")], base_offset=5, producer_id=8, transactional=True)
    log += marker(6, 7, commit=True)
    log += marker(7, 8, commit=True)
    fetch = Fetch(bytes(log), aborted=[(8, 1)])
    assert [record.value for record in fetch.all()] == [b"keep 0", b"plain 3", b"keep 5"]
    assert fetch.position == 8


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy"])
@pytest.mark.parametrize("magic", [0, 1])
def test_messages_of_old_formats_are_read(magic: int, codec: str) -> None:
    log = batch_of([(b"k", b"a"), (None, b"b")], codec, magic=magic)
    if codec != "none":
        struct.pack_into(">q", log, 0, 1)  # the broker gives a compressed message the offset of its last one
    fetch = Fetch(bytes(log))
    parts = fetch.poll()
    assert fetch.position == 2
    assert content([record for part in parts for record in part]) == [(b"k", b"a"), (None, b"b")]


def test_an_old_message_that_is_damaged_has_a_flaw() -> None:
    log = batch_of([(b"k", b"a")], magic=1)
    log[-1] ^= 1
    (found,) = [record for part in Fetch(bytes(log)).poll() for record in part]
    assert found.flaw is not None and "its checksum is wrong" in found.flaw.reason


@settings(deadline=None, max_examples=300)
@given(pairs, st.sampled_from(sorted(CODECS)), st.data())
def test_no_byte_of_a_batch_raises_and_every_offset_is_accounted_for(
    content_: list[KeyValue], codec: str, data: st.DataObject
) -> None:
    """A producer can write anything behind a right checksum: each offset is then a record, a flaw, or not there."""
    batch = batch_of(content_, codec, base_offset=10)
    for _ in range(data.draw(st.integers(1, 3))):
        # Offsets of the header come from the broker; the codec and all that follows come from the producer.
        place = data.draw(st.integers(21, 22) | st.integers(27, 42) | st.integers(57, len(batch) - 1))
        batch[place] = data.draw(st.integers(0, 255))
    batch[21:23] = struct.pack(">h", struct.unpack(">h", batch[21:23])[0] & ~0x30)  # no transaction's
    fetch = Fetch(bytes(signed(batch) + batch_of([(None, b"next")], base_offset=10 + len(content_))), position=10)
    found = fetch.all()
    assert not fetch.holds
    assert found[-1].value == b"next"
    assert fetch.position == 11 + len(content_)
    offset = 9
    for record in found:
        assert record.offset > offset
        offset = record.flaw.last_offset if record.flaw else record.offset
        assert record.timestamp in range(-(1 << 63), 1 << 63)
