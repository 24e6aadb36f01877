"""What an augmented window may show, position by position."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.state.ring import Neighbors
from tests.trainer.planted import decoded, replayed
from trainer.augment import crop, mask, reorder
from trainer.dataset import Histories, SessionBatch

users = st.lists(st.integers(0, 2), min_size=1, max_size=40)
LENGTH = 9


def batch_of(user: list[int], stride: int) -> SessionBatch:
    """Windows of a log whose events each have an item of their own, numbered as the events: rows name events."""
    names, items = [f"u{u}" for u in user], [f"i{at}" for at in range(len(user))]
    log = replayed(decoded(names, items, [60_000 * at for at in range(len(user))], [""] * len(user), [])).data().log
    log.item[:] = torch.arange(len(user))
    log.kind[:] = torch.arange(len(user)) % 5
    histories = Histories(log)
    return histories.batch(histories.windows(0, len(log), stride), LENGTH)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seen(events: Neighbors, row: int, at: int) -> list[int]:
    return [event for event in events.row[row, : at + 1].tolist() if event >= 0]


def augmented(batch: SessionBatch, seed: int, crops: float = 0.7, reorders: float = 0.7) -> SessionBatch:
    generator = seeded(seed)
    return reorder(crop(batch, crops, generator), reorders, generator)


@given(user=users, stride=st.integers(1, LENGTH), seed=st.integers(0, 1000))
def test_no_position_sees_its_target_or_what_came_after_it(user: list[int], stride: int, seed: int) -> None:
    batch = augmented(batch_of(user, stride), seed)
    for row, at in (batch.target >= 0).nonzero().tolist():
        assert max(seen(batch.events, row, at)) < batch.target[row, at]


@given(user=users, stride=st.integers(1, LENGTH), seed=st.integers(0, 1000))
def test_targets_stay_where_they_are_or_are_left_out_but_for_the_last(user: list[int], stride: int, seed: int) -> None:
    plain = batch_of(user, stride)
    batch = augmented(plain, seed)
    kept = batch.target >= 0
    assert torch.equal(batch.target[kept], plain.target[kept])
    assert torch.equal(batch.target[:, -1], plain.target[:, -1])
    assert torch.equal(batch.target_kind, plain.target_kind)
    assert torch.equal(batch.target_session, plain.target_session)


@given(user=users, seed=st.integers(0, 1000))
def test_a_cropped_window_holds_its_last_inputs_whole(user: list[int], seed: int) -> None:
    plain = batch_of(user, LENGTH)
    batch = crop(plain, 1.0, seeded(seed))
    for row in range(len(plain.target)):
        before, after = seen(plain.events, row, LENGTH), seen(batch.events, row, LENGTH)
        assert before == [] or 1 <= len(after) <= len(before)
        assert after == before[len(before) - len(after) :]
        gone, kept = slice(0, LENGTH - len(after)), slice(LENGTH - len(after), None)
        for old, new, empty in zip(
            plain.events.columns(), batch.events.columns(), Neighbors.none(1, LENGTH).columns(), strict=True
        ):
            assert torch.equal(new[row, kept], old[row, kept]) and torch.equal(new[row, gone], empty[0, gone])
        assert (batch.target[row, gone] < 0).all() and torch.equal(batch.target[row, kept], plain.target[row, kept])


@given(user=users, stride=st.integers(1, LENGTH), seed=st.integers(0, 1000))
def test_reordering_moves_what_happened_within_a_short_run_and_drops_no_target_in_vain(
    user: list[int], stride: int, seed: int
) -> None:
    plain = batch_of(user, stride)
    batch = reorder(plain, 1.0, seeded(seed))
    assert torch.equal(batch.events.time_ms, plain.events.time_ms)
    assert torch.equal(batch.events.session, plain.events.session)
    for row in range(len(plain.target)):
        before, after = plain.events.row[row].tolist(), batch.events.row[row].tolist()
        assert sorted(before) == sorted(after)
        moved = [at for at in range(LENGTH) if before[at] != after[at]]
        assert not moved or moved[-1] - moved[0] < 4
        for at in range(LENGTH):
            if after[at] >= 0:
                assert batch.events.kind[row, at] == after[at] % 5
            whole = set(after[: at + 1]) == set(before[: at + 1])  # nothing from behind it
            expected = plain.target[row, at] if whole else -1
            assert batch.target[row, at] == expected


def share_changed(before: Tensor, after: Tensor) -> float:
    return (before != after).any(1).float().mean().item()


@pytest.mark.parametrize(("change", "least"), [(crop, 0.8), (reorder, 0.9)])
def test_so_many_windows_are_changed_as_it_is_probable(change, least: float) -> None:
    batch = batch_of([0] * 400, 1)
    batch = replace(batch, events=batch.events.select(slice(LENGTH, None)), target=batch.target[LENGTH:])
    all_of_them = share_changed(batch.events.row, change(batch, 1.0, seeded(0)).events.row)
    half = share_changed(batch.events.row, change(batch, 0.5, seeded(0)).events.row)
    assert least < all_of_them
    assert half == pytest.approx(0.5 * all_of_them, abs=0.08)
    assert change(batch, 0.0, seeded(0)) is batch


@given(user=users, seed=st.integers(0, 1000))
def test_a_masked_event_keeps_everything_but_its_item(user: list[int], seed: int) -> None:
    events = batch_of(user, LENGTH).events
    masked = mask(events, 0.5, len(user), seeded(seed))
    assert torch.equal(masked.mask, events.mask)
    assert ((masked.row == events.row) | (events.mask & (masked.row == len(user)))).all()
    assert all(torch.equal(*both) for both in zip(events.columns()[1:], masked.columns()[1:], strict=True))


def test_so_many_events_are_masked_as_it_is_probable() -> None:
    events = batch_of([0] * 400, 1).events
    hidden = mask(events, 0.3, 400, seeded(0)).row[events.mask] == 400
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert mask(events, 0.0, 400, seeded(0)) is events


def test_the_same_seed_gives_the_same_reading() -> None:
    batch = batch_of([0, 1] * 30, 4)
    first, again, other = (augmented(batch, seed).events.row for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
