"""What is remembered of the log while a generation is being built aside."""

from __future__ import annotations

import torch

from engine.installer import Missed
from engine.state.state import Folded

USERS, ITEMS, EVENTS = 5, 7, 4


def a_batch(number: int) -> Folded:
    """A few events of the same few users and items, and what else a batch may change."""
    event = torch.arange(EVENTS)
    user, item = (event + number) % USERS, (event * number) % ITEMS
    columns = dict.fromkeys(Folded.__dataclass_fields__, event[:0])
    columns |= {"event": event, "user": user, "item": item, "previous": item.roll(1), "session": event.int()}
    columns |= {"catalog": item[:1], "stale_users": user[:1], "new_items": item[1:2], "gone_users": user[1:2]}
    return Folded(**columns)


def rows(parts: list[Folded]) -> int:
    return sum(len(column) for part in parts for column in vars(part).values())


def test_however_long_a_build_takes_what_it_misses_holds_each_row_once():
    missed, batches, held = Missed(), [a_batch(number) for number in range(1200)], []
    missed.begin()
    for one in batches:
        missed.add(one)
        held.append(rows(missed._parts))
    assert max(held[600:]) <= max(held[:600])
    got, want = missed.end(), Folded.joined(batches)
    for name in Folded.__dataclass_fields__:
        assert getattr(got, name).tolist() == getattr(want, name).tolist(), name
    assert got.user.tolist() == [*range(USERS)]
    assert got.item.tolist() == [*range(ITEMS)]


def test_nothing_is_remembered_where_nothing_is_built():
    missed = Missed()
    missed.add(a_batch(0))
    assert missed.end() is None
    missed.begin()
    assert missed.end() is None
    missed.add(a_batch(1))
    assert missed.end() is None
