from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events.batch import Flaw, Record
from engine.events.records import Records

blobs = st.none() | st.binary(max_size=5)
lists = st.lists(
    st.builds(
        Record,
        topic=st.sampled_from(["a", "b"]),
        partition=st.integers(0, 1),
        offset=st.integers(0, 2**62),
        timestamp_ms=st.integers(-1, 2**62),
        key=blobs,
        value=blobs,
    ),
    max_size=12,
)


@given(lists)
def test_packed_records_are_the_records(records: list[Record]) -> None:
    packed = Records.packed(records)
    assert list(packed) == [packed[position] for position in range(len(packed))] == records
    assert packed == records
    assert all(
        type(value) is type(given)
        for a, b in zip(packed, records, strict=True)
        for value, given in zip(a, b, strict=True)
    )
    assert sum(run.count for run in packed.runs) == len(packed) == len(records)
    assert Records.packed(packed) is packed


@given(lists)
def test_they_travel_whole(records: list[Record]) -> None:
    packed = Records.packed(records)
    assert list(packed) == records  # what was derived meanwhile stays here
    assert pickle.loads(pickle.dumps(packed)) == records


@given(st.lists(lists, max_size=4))
def test_joined_batches_follow_each_other(batches: list[list[Record]]) -> None:
    assert Records.joined([Records.packed(part) for part in batches]) == [record for part in batches for record in part]


@given(lists, st.data())
def test_some_of_them_come_in_the_order_asked_for(records: list[Record], data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, max(0, len(records) - 1)), max_size=6 if records else 0))
    assert Records.packed(records).take(np.array(positions, np.int64)) == [records[at] for at in positions]
    index = data.draw(st.slices(len(records)))
    assert Records.packed(records)[index] == records[index]


@given(lists)
def test_columns_say_what_the_records_do(records: list[Record]) -> None:
    packed = Records.packed(records)
    assert packed.partition.tolist() == [record.partition for record in records]
    assert packed.of_topic("b").tolist() == [record.topic == "b" for record in records]
    assert packed.positions() == {(record.topic, record.partition): record.next_offset for record in records}


def test_records_of_the_client_are_packed_as_they_come() -> None:
    flaw = Flaw(last_offset=9, records=3, reason="damaged")

    def fetched(partition: int, offset: int, timestamp: int | None, flaw: Flaw | None = None) -> SimpleNamespace:
        fields = {"partition": partition, "offset": offset, "timestamp": timestamp, "flaw": flaw}
        return SimpleNamespace(topic="t", key=None, value=b"v", **fields)

    packed = Records.fetched([[fetched(0, 4, 7), fetched(0, 6, None, flaw)], [], [fetched(1, 0, 0)]])
    assert packed == [
        Record("t", 0, 4, 7, None, b"v"),
        Record("t", 0, 6, -1, None, b"v", flaw),
        Record("t", 1, 0, 0, None, b"v"),
    ]
    assert packed.positions() == {("t", 0): 10, ("t", 1): 1}


def test_a_position_outside_is_an_index_error() -> None:
    packed = Records.packed([Record("t", 0, 0, 0, None, b"v")])
    assert packed[-1] == packed[0]
    with pytest.raises(IndexError):
        packed[1]


def test_a_part_keeps_the_flaws_of_its_own_records() -> None:
    flaw = Flaw(7, 5, "offsets 3 to 7 can't be read")
    packed = Records.packed([Record("a", 0, at, 0, b"k", None, flaw if at == 3 else None) for at in range(6)])
    assert packed[2:5].flaws == {1: flaw} and packed[4:].flaws == {}
    assert packed[:4].positions() == {("a", 0): 8} and packed[:3].positions() == {("a", 0): 3}
