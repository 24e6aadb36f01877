from __future__ import annotations

import math

import pytest
import torch

from trainer import losses
from trainer.losses import full_softmax, listed_softmax, sampled_softmax, session_mask


def test_sampled_softmax_is_the_plain_cross_entropy_with_corrected_negatives() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(5, generator=generator), torch.randn(5, 7, generator=generator)
    log_inclusion = torch.log(torch.rand(7, generator=generator))
    masked = torch.rand(5, 7, generator=generator) < 0.3
    losses = []
    for p in range(5):
        total = math.exp(positive[p])
        for m in range(7):
            if not masked[p, m]:
                total += math.exp(negative[p, m]) / math.exp(log_inclusion[m])
        losses.append(math.log(total) - positive[p].item())
    torch.testing.assert_close(sampled_softmax(positive, negative, log_inclusion, masked).item(), sum(losses) / 5)


def test_full_softmax_is_the_plain_cross_entropy_among_all_items() -> None:
    generator = torch.Generator().manual_seed(0)
    query, table = torch.randn(4, 3, generator=generator), torch.randn(6, 3, generator=generator)
    target = torch.tensor([5, 0, 0, 3])
    want = 0.0
    for row, at in zip((query @ table.T).tolist(), target.tolist(), strict=True):
        want += math.log(sum(map(math.exp, row))) - row[at]
    torch.testing.assert_close(full_softmax(query, table, target).item(), want / 4)


@pytest.mark.parametrize("chunk", [1, 1 << 21])
def test_full_softmax_has_the_gradients_of_the_plain_cross_entropy_in_any_chunks(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(losses, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(70, 8, generator=generator).requires_grad_()
    table = torch.randn(50, 8, generator=generator).requires_grad_()
    target = torch.randint(0, 50, (70,), generator=generator)
    want = torch.autograd.grad(3 * torch.nn.functional.cross_entropy(query @ table.T, target), (query, table))
    got = torch.autograd.grad(3 * full_softmax(query, table, target), (query, table))
    torch.testing.assert_close(got, want)


def test_full_softmax_in_half_precision_stays_near_the_plain_one() -> None:
    generator = torch.Generator().manual_seed(0)
    query, table = torch.randn(70, 8, generator=generator), torch.randn(50, 8, generator=generator)
    target = torch.randint(0, 50, (70,), generator=generator)
    near = full_softmax(query.bfloat16(), table, target)
    torch.testing.assert_close(near, full_softmax(query, table, target), rtol=0.01, atol=0.01)


def test_full_softmax_of_no_position_is_nothing_and_has_no_gradient() -> None:
    query, table = torch.randn(0, 3, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    loss = full_softmax(query, table, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert table.grad is not None and not bool(table.grad.any())


def test_session_mask_spares_the_target_and_its_fellows_only() -> None:
    target = torch.tensor([[-1, 3, 5, 3], [7, 8, 9, 1]])
    session = torch.tensor([[1, 1, 1, 2], [4, 4, 4, 5]])
    negatives = torch.tensor([1, 3, 5, 6])
    masked = session_mask(target, session, negatives, items=10)
    for b in range(2):
        for t in range(4):
            fellows = {target[b, j].item() for j in range(4) if session[b, j] == session[b, t]}
            assert masked[b, t].tolist() == [n.item() in fellows for n in negatives]


def test_session_mask_of_no_overlap_is_empty() -> None:
    assert not session_mask(torch.tensor([[0, -1]]), torch.ones(1, 2), torch.tensor([1, 2]), items=3).any()


def test_listed_softmax_pits_each_wanted_item_against_those_that_are_not() -> None:
    score = torch.tensor([[1.0, 0.5, -1.0, 2.0, 9.0], [0.0, 1.0, 2.0, 3.0, 9.0]])
    wanted = torch.tensor([[True, False, True, False, False], [False, False, False, True, False]])
    there = torch.tensor([[True, True, True, True, False]] * 2)
    total = 0.0
    for row, places, others in ((0, (0, 2), (1, 3)), (1, (3,), (0, 1, 2))):
        rest = sum(math.exp(score[row, at]) for at in others)
        each = [math.log(rest + math.exp(score[row, at])) - score[row, at].item() for at in places]
        total += sum(each) / len(each)
    torch.testing.assert_close(listed_softmax(score, wanted, there).item(), total / 2)
