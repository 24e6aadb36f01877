from __future__ import annotations

from engine.events.batch import Flaw, Record, Rejection
from engine.events.dead_letter import MAX_VALUE_BYTES, Letter, LetterId, MemoryDeadLetters, letter_id

RECORD = Record("ousel.events", 2, 17, 1_700_000_000_000, b"k", b"v")


def headers(letter: Letter) -> dict[str, bytes]:
    return dict(letter.headers)


def test_a_letter_has_the_record_its_reason_and_its_position() -> None:
    letter = Letter.of(Rejection(RECORD, "kind must be … got 'ü'"))
    assert (letter.key, letter.value) == (b"k", b"v")
    assert headers(letter) == {
        "reason": "kind must be … got 'ü'".encode(),
        "topic": b"ousel.events",
        "partition": b"2",
        "offset": b"17",
        "timestamp": b"1700000000000",
    }
    assert letter_id(letter.headers) == letter.id == LetterId("ousel.events", 2, 17, 1_700_000_000_000)


def test_long_parts_are_cut_and_the_full_size_is_told() -> None:
    long = RECORD._replace(value=b"x" * (MAX_VALUE_BYTES + 1), key=b"k" * 10**6)
    letter = Letter.of(Rejection(long, "r" * 10**6))
    assert letter.value == b"x" * MAX_VALUE_BYTES
    assert headers(letter)["truncated"] == str(MAX_VALUE_BYTES + 1).encode()
    assert letter.size_bytes < 150_000


def test_a_letter_that_is_refused_loses_its_value_then_its_key_and_never_its_position() -> None:
    letter = Letter.of(Rejection(RECORD._replace(value=b"x" * 100_000), "reason"))
    without_value = letter.smaller()
    assert without_value is not None
    assert (without_value.key, without_value.value) == (b"k", b"")
    assert headers(without_value) | {"truncated": b"100000", "left_out": b"value"} == headers(without_value)
    without_key = without_value.smaller()
    assert without_key is not None
    assert (without_key.key, without_key.value) == (b"ousel.events-2-17", b"")
    assert headers(without_key)["left_out"] == b"value, key"
    assert without_key.smaller() is None
    assert letter_id(without_key.headers) == letter.id


def test_a_letter_may_stand_for_a_stretch_of_damaged_records() -> None:
    flaw = Flaw(21, 5, "offsets 17 to 21 have a wrong checksum")
    letter = Letter.of(Rejection(Record("ousel.events", 2, 17, -1, None, None, flaw), flaw.reason))
    assert (letter.key, letter.value) == (None, b"")
    assert (headers(letter)["offset"], headers(letter)["last_offset"]) == (b"17", b"21")
    assert letter_id(letter.headers) == letter.id


def test_headers_of_others_name_no_record() -> None:
    assert letter_id([]) is None
    assert letter_id([("topic", b"t"), ("partition", b"x"), ("offset", b"1"), ("timestamp", b"1")]) is None
    assert letter_id([("topic", b"t"), ("partition", b"1"), ("offset", b"1")]) is None  # as Ousel wrote them once


def test_memory_keeps_what_it_is_given() -> None:
    letters = MemoryDeadLetters()
    letters.publish([Rejection(RECORD, "no item")])
    letters.publish([])
    assert letters.rejections == [Rejection(RECORD, "no item")]
