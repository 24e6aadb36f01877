"""The times that the command line reads, beside those that the engine reads in events."""

import math
from argparse import ArgumentTypeError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ousel.cli_arguments import time_of

# The engine is not there where the client's tests run with other versions of grpcio and protobuf.
pytest.importorskip("pydantic")

from engine.config import EventsConfig
from engine.events.times import TimeError, TimeRule

TEXTS = [
    "2026-03-31T08:00:00.250Z", "2026-03-31 10:00:00.25+02:00", "2026-03-31T08:00:00.250000000Z",
    "2026-03-31 08:00:00.25 UTC", "1774944000.25", "1774944000250", "1774944000250000", "1774944000250000000",
    "1.77494400025e9",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_the_forms_of_a_time_are_the_same_moment_for_both(text):
    assert TimeRule.of(EventsConfig()).ms(text) == round(time_of(text).timestamp() * 1000) == 1_774_944_000_250


@given(st.one_of(st.integers(-(10**23), 10**23).map(str), st.floats(0, 1e20).map(repr), st.text("0123456789.eE+-Z:T ")))
def test_every_time_is_read_as_the_engine_reads_it_or_refused_by_both(text):
    try:
        expected = TimeRule.of(EventsConfig()).ms(text)
    except TimeError:
        expected = None
    try:
        found = math.floor(time_of(text).timestamp() * 1000 + 1e-3)
    except ArgumentTypeError:
        found = None
    assert found == expected or abs(found - expected) <= 1
