"""Which events each head of the session encoder sees, and what it is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.model.sequence import SequenceEncoder
from engine.state.ring import Neighbors

LENGTH, ITEMS, DIM = 7, 9, 8


def encoder(local_heads: int, local_window: int = 3) -> SequenceEncoder:
    torch.manual_seed(0)
    made = SequenceEncoder(DIM, 2, 1, LENGTH, 2, 0.0, local_heads=local_heads, local_window=local_window).eval()
    return made.requires_grad_(False)


def events(padding: int = 0) -> Neighbors:
    row = torch.arange(LENGTH)[None] % ITEMS
    row[:, :padding] = -1
    zero = torch.zeros_like(row)
    return Neighbors(row, 60_000 * torch.arange(LENGTH)[None], zero, zero.float(), zero.int() + 1)


def seen_by_last(made: SequenceEncoder, padding: int = 0) -> list[int]:
    """Positions of which the last one's vector depends on the item."""
    table = torch.nn.functional.normalize(
        torch.randn(2 * ITEMS, DIM, generator=torch.Generator().manual_seed(1)), dim=1
    )
    plain = made(table, events(padding))[0, -1]
    seen = []
    for at in range(padding, LENGTH):
        other = events(padding)
        other = replace(other, row=other.row.clone())
        other.row[0, at] += ITEMS
        if not torch.allclose(made(table, other)[0, -1], plain, atol=1e-6):
            seen.append(at)
    return seen


@pytest.mark.parametrize("window", [1, 3, LENGTH, LENGTH + 5])
def test_local_heads_see_the_latest_events_only(window: int) -> None:
    assert seen_by_last(encoder(2, window)) == list(range(max(0, LENGTH - window), LENGTH))


def test_the_other_heads_see_the_whole_window() -> None:
    assert seen_by_last(encoder(1, 2)) == list(range(LENGTH))
    assert seen_by_last(encoder(0, 1)) == list(range(LENGTH))


@pytest.mark.parametrize(("blocks", "reach"), [(1, 3), (2, 5)])
def test_each_block_sees_its_window_of_a_longer_history(blocks: int, reach: int) -> None:
    torch.manual_seed(0)
    made = SequenceEncoder(DIM, 2, blocks, 3, 2, 0.0).eval().requires_grad_(False)
    assert made.reach == reach
    assert seen_by_last(made) == list(range(LENGTH - reach, LENGTH))
    table = torch.nn.functional.normalize(torch.randn(ITEMS, DIM), dim=1)
    torch.testing.assert_close(made.latest(table, events()), made(table, events())[:, -1], atol=1e-6, rtol=0)


def test_the_first_heads_are_the_local_ones_by_distance_whatever_is_padded() -> None:
    bias = encoder(1, 2)._bias(events(padding=3))[0]  # [H, L, L]
    blind = bias < -1e8
    for i in range(LENGTH):
        for j in range(LENGTH):
            hidden = j > i or (j < 3 and j != i)
            assert blind[1, i, j] == hidden
            assert blind[0, i, j] == (hidden or i - j >= 2)


def test_a_goal_is_any_kind_until_it_is_learned_and_then_moves_its_own_queries_only() -> None:
    torch.manual_seed(0)
    made = SequenceEncoder(DIM, 2, 1, LENGTH, 3, 0.0, by_kind=True).eval().requires_grad_(False)
    table = torch.nn.functional.normalize(torch.randn(ITEMS, DIM), dim=1)
    plain = made(table, events())
    assert all(torch.equal(made(table, events(), goal), plain) for goal in range(3))
    assert made.goal is not None
    made.goal.weight[1] = 1.0
    assert torch.equal(made(table, events()), plain)
    assert torch.equal(made(table, events(), 0), plain)
    moved = made(table, events(), 1)
    assert not torch.allclose(moved, plain, atol=1e-3)
    each = torch.arange(LENGTH)[None] % 2  # a goal per position
    expected = torch.where(each[..., None] == 1, moved, plain)
    torch.testing.assert_close(made.query(made.states(table, events()), each), expected, atol=1e-6, rtol=0)


def test_a_wide_local_window_is_none() -> None:
    table = torch.nn.functional.normalize(torch.randn(ITEMS, DIM), dim=1)
    assert torch.equal(encoder(1, LENGTH)(table, events()), encoder(0)(table, events()))
