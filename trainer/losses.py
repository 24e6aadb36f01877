"""Losses of both stages.

Shapes: P positions, M negatives, B lists, C candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    return (total - positive).mean()


def full_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each target [P] among all items: logits [P, N]. 0 where there is no position."""
    return F.cross_entropy(logits, target, reduction="sum") / max(1, len(target))


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


def candidate_softmax(score: Tensor, candidates: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of `target` [B] within `candidates` [B, C] (-1: none), of the lists that hold it."""
    hit = candidates == target[:, None]
    score = score.masked_fill(candidates < 0, float("-inf"))
    held = hit.any(1)
    if not bool(held.any()):
        return score.new_zeros(()) * 0.0
    return F.cross_entropy(score[held], hit[held].to(torch.int8).argmax(1))
