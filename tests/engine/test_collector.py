from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from engine import collector


class Thing:
    """Something that may refer to itself."""

    other: Thing


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_what_is_alive_is_set_aside_and_garbage_is_not() -> None:
    kept, garbage = Thing(), Thing()
    kept.other, garbage.other = kept, garbage
    gone = weakref.ref(garbage)
    del garbage
    collector.set_aside()
    assert gone() is None
    assert gc.get_freeze_count() > 0
    assert not any(found is kept for found in gc.get_objects())


def test_young_objects_are_collected_after_so_many() -> None:
    collector.collect_every(5000)
    assert gc.get_threshold()[0] == 5000


def test_old_objects_are_looked_at_a_tenth_as_often_and_young_ones_as_before() -> None:
    young, middle, old = gc.get_threshold()
    collector.collect_old_rarely()
    assert gc.get_threshold() == (young, middle, 10 * old)
