from __future__ import annotations

import torch

from trainer.ranking import _drawn, _rebatch
from trainer.walk import Lists


def lists_of(item: list[list[int]]) -> Lists:
    """Score and features that name their item."""
    rows = torch.tensor(item)
    return Lists(rows, rows.float(), rows[..., None].expand(-1, -1, 3).float())


def test_a_draw_keeps_the_target_and_takes_candidates_before_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = lists_of([[3, 8, 9, 4, -1, -1], [7, 1, 2, 5, 6, 0]])
    seen = set()
    for _ in range(50):
        drawn = _drawn(whole, torch.tensor([9, 0]), 3, generator)
        assert drawn.item.shape == (2, 3)
        for row, target in zip(drawn.item.tolist(), (9, 0), strict=True):
            assert target in row and -1 not in row and len(set(row)) == 3
        assert torch.equal(drawn.score, drawn.item.float())
        assert torch.equal(drawn.features[..., 1], drawn.item.float())
        seen.update(drawn.item.flatten().tolist())
    assert seen == set(range(10))


def test_a_draw_of_more_than_there_are_takes_all() -> None:
    drawn = _drawn(lists_of([[3, 8, -1]]), torch.tensor([8]), 10, torch.Generator())
    assert sorted(drawn.item[0].tolist()) == [-1, 3, 8]


def test_rebatching_keeps_every_example_with_its_target() -> None:
    kept = [
        (lists_of([[start + at, start + at + 1, 7][: 2 + wide] for at in range(50)]), torch.arange(start, start + 50))
        for start, wide in ((0, 0), (100, 1), (200, 0))
    ]
    batches = _rebatch(kept)
    assert [len(target) for _, target in batches] == [64, 64, 22]
    targets = torch.cat([target for _, target in batches])
    items = torch.cat([lists.item for lists, _ in batches])
    assert torch.equal(items[:, 0], targets)
    assert torch.equal(items[:, 1], targets + 1)
    assert items[:50, 2].eq(-1).all() and items[50:100, 2].eq(7).all()
    assert _rebatch([]) == []
