from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import letters_written as module
from engine.events.dead_letter import LetterId
from engine.events.letters_written import WrittenLetters

ids = st.builds(
    LetterId, st.sampled_from(["events", "items"]), st.integers(0, 2), st.integers(0, 50), st.integers(1000, 1003)
)


@given(added=st.lists(ids), asked=st.lists(ids), merge=st.integers(1, 8))
def test_it_knows_exactly_the_letters_that_the_topic_has(
    added: list[LetterId], asked: list[LetterId], merge: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MERGE", merge)
        written = WrittenLetters()
        for letter in added:
            written.add(letter)
        assert all((letter in written) == (letter in set(added)) for letter in asked + added)


def test_letters_that_retention_has_deleted_count_as_written_and_a_topic_made_again_begins_anew() -> None:
    written = WrittenLetters()
    written.add(LetterId("events", 0, 500, 9000))
    before = LetterId("events", 0, 20, 5000)
    assert before not in written  # the topic is whole, so this one was never written
    written.miss_oldest()
    assert before in written
    assert LetterId("events", 0, 501, 5000) not in written
    assert LetterId("events", 1, 20, 5000) not in written
    # The same offset of a topic that was deleted and made again is a later record.
    assert LetterId("events", 0, 20, 9001) not in written
    assert LetterId("events", 0, 500, 9001) not in written


def test_it_keeps_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MERGE", 8)
    monkeypatch.setattr(module, "_MAX_LETTERS", 100)
    written = WrittenLetters()
    for at in range(1000):
        written.add(LetterId("events", 0, at, at))
        assert len(written) < 108
    assert written._hashes.dtype == np.int64
