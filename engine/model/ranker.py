"""Orders candidates by the session's score and by live features of candidate and user.

Shapes: B users, C candidates of each, K remembered events, S latest items, n next items of each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.votes import VOTES
from engine.state.ring import Neighbors

TRENDS = 2  # half-lives of popularity beside the first
_OWN = 18  # features from the user's history and from popularity
_CROWD = 100.0  # events of one's own that all of popularity weighs as much as, where habits are mixed with it
_LATEST = 3  # last events that are told apart
FEATURES = _OWN + TRENDS + _LATEST + VOTES
_DAY_MS = 86_400_000.0
_NEVER = 1e4  # sessions or days back, for what was never seen


def candidate_features(
    candidates: Tensor, history: Neighbors, following: Tensor, share: Tensor, trend: Tensor, votes: Tensor
) -> Tensor:
    """Live features of candidates, from the state as it is at the call.

    History is matched to candidates by binary search and summed by scatter: O(K log C) for each user, where comparing
    all with all would be O(K C).

    Args:
        candidates: [B, C] int64 item rows in any order, each once, -1 where there is none.
        history: [B, K] the user's latest events.
        following: [B, S * n] items that lately followed the user's last S items, -1 where none.
        share: [B, C] each candidate's share of decayed popularity.
        trend: [B, C, TRENDS] the same under shorter half-lives, relative to the popular items.
        votes: [B, C, VOTES] see `count_votes`.

    Returns:
        [B, C, FEATURES] float32, each roughly within -2..2.
    """
    rows, order = candidates.sort(dim=1)
    place = _place(rows, order, history.row)  # [B, K]
    current = history.session[:, -1:]  # [B, 1], of the newest event
    ago = (current - history.session).clamp_min(0).float()  # [B, K] sessions back
    idle = (history.time_ms[:, -1:] - history.time_ms).clamp_min(0).float() / _DAY_MS  # [B, K] days back

    def reduced(column: Tensor, how: str, empty: float = 0.0) -> Tensor:
        """[B, C] from a column [B, K] of the history."""
        out = column.new_full((len(rows), rows.shape[1] + 1), empty)
        return out.scatter_reduce_(1, place, column, how)[:, :-1]

    present = history.mask.float()
    count = reduced(present, "sum")
    seen = count > 0
    nearest = reduced(ago, "amin", _NEVER)
    newest = reduced(idle, "amin", _NEVER)
    oldest = reduced(idle, "amax", 0.0)
    interval = (oldest - newest.clamp_max(_NEVER)) / (count - 1).clamp_min(1)  # days between, where count > 1
    again = count > 1
    due = torch.log((newest + 1.0) / (interval + 1.0)).clamp(-4, 4)  # above 0: later than usual

    sessions = torch.where(history.mask, ago, 0.0).amax(1, keepdim=True) + 1.0  # [B, 1]
    length = (present * (ago == 0)).sum(1, keepdim=True)  # [B, 1] events of the current session
    repeats = 1.0 - seen.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp_min(1.0)

    follows = count.new_zeros(len(rows), rows.shape[1] + 1)
    followed = _place(rows, order, following)
    follows = follows.scatter_add_(1, followed, torch.ones_like(followed, dtype=torch.float32))[:, :-1]

    def where_seen(value: Tensor, mask: Tensor = seen) -> Tensor:
        return torch.where(mask, value, 0.0)

    own = torch.stack(
        [
            torch.log(share.float() + 1e-7) / 8.0 + 1.0,
            torch.log1p(count),
            seen.float(),
            (seen & (nearest == 0)).float(),
            where_seen(torch.log1p(nearest) / 3.0),
            where_seen(torch.log1p(newest) / 4.0),
            where_seen(torch.log1p(interval) / 4.0, again),
            where_seen(due, again),
            count / sessions,
            torch.log1p(reduced(torch.exp2(-ago / 4.0), "sum")),
            torch.log1p(reduced(torch.exp2(-ago / 16.0), "sum")),
            torch.log1p(reduced(torch.exp2(-idle / 14.0), "sum")),
            torch.log1p(follows),
            (torch.log1p(length) / 4.0).expand_as(count),
            (torch.log1p(sessions) / 4.0).expand_as(count),
            repeats.expand_as(count),
            torch.log(reduced(torch.exp2(-idle / 60.0), "sum") + _CROWD * share.float() + 1e-4) / 4.0,
            torch.log(count + _CROWD * share.float() + 1e-4) / 4.0,
        ],
        dim=-1,
    )
    latest = history.row[:, -_LATEST:].flip(1)  # [B, 3], the newest first
    is_latest = F.pad((candidates[..., None] == latest[:, None]).float(), (0, _LATEST - latest.shape[1]))
    trends = torch.log(trend.float() + 1e-5) / 6.0 + 1.0
    return torch.cat([own, trends, is_latest, torch.log(votes + 1e-4) / 4.0 + 1.0], dim=-1)


def _place(rows: Tensor, order: Tensor, items: Tensor) -> Tensor:
    """[B, n] where each of `items` [B, n] stands among the candidates; C where it does not, or is -1."""
    if rows.shape[1] == 0:
        return torch.zeros_like(items)
    at = torch.searchsorted(rows, items.contiguous()).clamp_max(rows.shape[1] - 1)
    found = (rows.gather(1, at) == items) & (items >= 0)
    return torch.where(found, order.gather(1, at), rows.shape[1])


def trend_of(counts: Tensor, popular: Tensor) -> Tensor:
    """Decayed counts [..., TRENDS] relative to all those [P, TRENDS] of the popular items; float32."""
    return (counts / popular.sum(0).clamp_min(torch.finfo(torch.float64).tiny)).float()


def trend_half_lives(half_lives: int) -> list[int]:
    """Which of a state's half-lives the trends are: the second and the third, or the last where there are fewer."""
    return [min(at, half_lives - 1) for at in range(1, TRENDS + 1)]


class Ranker(nn.Module):
    """The session's score, corrected by a small network over the live features."""

    def __init__(self, hidden: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES + 1)
        self.hidden = nn.Linear(FEATURES + 1, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.drop = nn.Dropout(dropout)
        self.session = nn.Parameter(torch.ones(()))

    def forward(self, session_score: Tensor, features: Tensor) -> Tensor:
        """[B, C] scores from the session's logits [B, C] and the features [B, C, FEATURES]."""
        x = torch.cat([session_score[..., None] / 8.0, features], dim=-1)
        x = self.norm(x.flatten(0, 1)).view(x.shape)
        x = self.drop(F.gelu(self.hidden(x)))
        x = self.drop(F.gelu(self.middle(x)))
        return self.session * session_score + self.score(x).squeeze(-1)
