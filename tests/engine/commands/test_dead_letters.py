"""How a dead letter is shown, whoever wrote it."""

from __future__ import annotations

import json

import pytest

from engine.commands.dead_letters import _json, _text
from engine.events.letter_reader import FoundLetter

PLACE = {"topic": "ousel.events", "partition": "2", "offset": "17", "reason": "item_id must not be empty"}


def test_a_letter_is_shown_with_its_time_place_and_reason():
    text = _text(FoundLetter(1_700_000_000_250, PLACE, b"u-1", b"{}"))
    assert text.startswith("2023-11-14T22:13:20Z  ousel.events[2]@17  item_id must not be empty")
    found = json.loads(_json(FoundLetter(1_700_000_000_250, PLACE, b"u-1", b"\xff")))
    assert (found["written"], found["partition"], found["key"]) == ("2023-11-14T22:13:20Z", 2, "u-1")
    assert found["value_base64"] == "/w=="


@pytest.mark.parametrize("written_ms", [-1, 10**16, 2**63 - 1, -(2**63)])
def test_a_letter_of_a_time_that_no_calendar_has_is_shown_all_the_same(written_ms):
    letter = FoundLetter(written_ms, PLACE, None, None)
    assert "ousel.events[2]@17" in _text(letter)
    assert json.loads(_json(letter))["offset"] == 17


@pytest.mark.parametrize("number", ["²", "٣", "", "-1", "9" * 5000, "seven"])
def test_a_header_that_holds_no_number_is_shown_as_the_text_that_it_is(number):
    letter = FoundLetter(0, PLACE | {"offset": number}, None, None)
    assert json.loads(_json(letter))["offset"] == number
    assert _text(letter)


@pytest.mark.parametrize("header", ["topic", "partition", "offset", "last_offset", "truncated", "reason"])
def test_no_header_can_forge_a_line_or_a_colour(header):
    shown = _text(FoundLetter(0, PLACE | {header: "1\n\x1b[31m2"}, b"k\n", b"v\x1b"))
    assert shown.count("\n") == 1 and "\x1b" not in shown
