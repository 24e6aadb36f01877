"""Orders candidates by the session's score and by live features of candidate and user.

Shapes: B users, C candidates of each, K remembered events, S latest items, n next items of each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.state.ring import Neighbors

FEATURES = 9
_DAY_MS = 86_400_000.0


def candidate_features(candidates: Tensor, history: Neighbors, following: Tensor, share: Tensor) -> Tensor:
    """Live features of candidates, from the state as it is at the call.

    Args:
        candidates: [B, C] int64 item rows, -1 where there is none.
        history: [B, K] the user's latest events.
        following: [B, S * n] items that lately followed the user's last S items, -1 where none.
        share: [B, C] each candidate's share of decayed popularity.

    Returns:
        [B, C, FEATURES] float32, each roughly within -2..2.
    """
    same = candidates[:, :, None] == history.row[:, None, :]  # [B, C, K]
    same &= history.mask[:, None, :]
    current = history.session[:, -1:]  # [B, 1], of the newest event
    ago = (current - history.session).clamp_min(0).float()  # [B, K] sessions back
    count = same.sum(-1).float()  # [B, C]
    far = 1e4
    nearest = torch.where(same, ago[:, None, :], far).amin(-1)
    idle_ms = (history.time_ms[:, -1:] - history.time_ms).clamp_min(0).float()
    idle_days = torch.where(same, idle_ms[:, None, :] / _DAY_MS, far).amin(-1)
    seen = count > 0
    sessions = (current.float() - torch.where(history.mask, history.session, current).amin(1, keepdim=True)) + 1.0
    recency = (same * torch.exp2(-ago / 4.0)[:, None, :]).sum(-1)
    follows = (candidates[:, :, None] == following[:, None, :]).sum(-1).float()
    zero = torch.zeros_like(count)
    return torch.stack(
        [
            torch.log(share.float() + 1e-7) / 8.0 + 1.0,
            torch.log1p(count),
            seen.float(),
            (seen & (nearest == 0)).float(),
            torch.where(seen, torch.log1p(nearest) / 3.0, zero),
            torch.where(seen, torch.log1p(idle_days) / 4.0, zero),
            count / sessions,
            torch.log1p(recency),
            torch.log1p(follows),
        ],
        dim=-1,
    )


class Ranker(nn.Module):
    """The session's score, corrected by a small network over the live features."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES + 1, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.session = nn.Parameter(torch.ones(()))

    def forward(self, session_score: Tensor, features: Tensor) -> Tensor:
        """[B, C] scores from the session's logits [B, C] and the features [B, C, FEATURES]."""
        x = torch.cat([session_score[..., None] / 8.0, features], dim=-1)
        x = F.gelu(self.middle(F.gelu(self.hidden(x))))
        return self.session * session_score + self.score(x).squeeze(-1)
