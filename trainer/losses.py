"""Losses of both stages.

Shapes: P positions, N items, d width, M negatives, B lists, C candidates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK = 1 << 21  # logits at once: 8 MiB, about the cache of a core


def sampled_softmax(positive: Tensor, negative: Tensor, log_inclusion: Tensor, masked: Tensor) -> Tensor:
    """Mean cross-entropy of each target against itself and the sampled negatives.

    Args:
        positive: [P] logits of the targets.
        negative: [P, M] logits of the negatives.
        log_inclusion: [M] log of the probability that each negative was in the sample.
        masked: [P, M] True where a negative must not count: the target itself, or a fellow of its session.
    """
    corrected = (negative - log_inclusion).masked_fill(masked, float("-inf"))
    total = torch.logaddexp(positive, corrected.logsumexp(dim=1))
    return (total - positive).sum() / max(1, len(positive))


def full_softmax(query: Tensor, table: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each target among all items, without ever holding [P, N].

    Args:
        query: [P, d] scaled by the temperature; its type is that of the products, so bfloat16 is faster and coarser.
        table: [N, d] of all items.
        target: [P] int64 below N. Without any the loss is 0.
    """
    total: Tensor = _FullSoftmax.apply(query, table, target)
    return total / max(1, len(target))


class _FullSoftmax(torch.autograd.Function):
    """Sum of cross-entropies; a chunk's gradients are made while its probabilities are still in the cache."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, target: Tensor) -> Tensor:
        items = table.to(query.dtype)
        by_query, by_table = torch.empty_like(query), torch.zeros_like(table)
        total = query.new_zeros((), dtype=torch.float32)
        rows = max(32, _CHUNK // max(1, len(table)))
        for first in range(0, len(query), rows):
            part, wanted = query[first : first + rows], target[first : first + rows, None]
            logits = (part @ items.T).float()  # [rows, N]
            logits -= logits.amax(1, keepdim=True)
            total -= logits.gather(1, wanted).sum()
            share = logits.exp_()
            norm = share.sum(1, keepdim=True)
            total += norm.log().sum()
            share /= norm
            share.scatter_add_(1, wanted, share.new_full((len(part), 1), -1.0))
            slope = share.to(query.dtype)
            by_query[first : first + rows] = slope @ items
            by_table += (slope.T @ part).to(by_table.dtype)
        ctx.save_for_backward(by_query, by_table)
        return total

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> tuple[Tensor, Tensor, None]:
        by_query, by_table = ctx.saved_tensors
        return by_query * scale[0].to(by_query.dtype), by_table * scale[0].to(by_table.dtype), None


def session_mask(target: Tensor, session: Tensor, negatives: Tensor, items: int) -> Tensor:
    """[B, L, M] True where a negative is the target, or a target of the same window and session.

    Args:
        target: [B, L] item rows, -1 where none. session: [B, L] of the target.
        negatives: [M] distinct item rows below `items`.
    """
    rows, length = target.shape
    place = torch.full((items + 1,), -1, dtype=torch.int64)
    place[negatives] = torch.arange(len(negatives))
    at = place[target]  # [B, L], -1 where no negative; row -1 reads the spare last entry
    masked = torch.zeros(rows, length, len(negatives), dtype=torch.bool)
    row, column = (at >= 0).nonzero(as_tuple=True)
    fellow = (session[row] == session[row, column, None]).nonzero(as_tuple=True)  # hits x L
    masked[row[fellow[0]], fellow[1], at[row, column][fellow[0]]] = True
    return masked


def listed_softmax(score: Tensor, wanted: Tensor, there: Tensor) -> Tensor:
    """Mean cross-entropy of each wanted candidate among itself and those that are not wanted, each list weighing alike.

    Args:
        score: [B, C]. wanted, there: [B, C] whether a candidate was wanted, and whether there is one; every list must
            hold one that was.
    """
    others = score.masked_fill(wanted | ~there, float("-inf")).logsumexp(1, keepdim=True)  # [B, 1]
    each = (torch.logaddexp(others, score) - score).masked_fill(~wanted, 0.0)
    return (each.sum(1) / wanted.sum(1)).mean()
