"""Orders candidates by the session's score and by live features of candidate and user.

Shapes: B users, C candidates of each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.features.table import FEATURES


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
