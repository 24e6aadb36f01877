"""Causal self-attention over a user's latest events.

Every position sees the last `window` events up to its own, in every block. So a block's keys and values at a position
never change as later events come, and whoever keeps them computes one position for one event (`newest`).

Shapes: B sessions, L events in each (oldest first, padded on the left), n new ones, H heads, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.layers import NO_ATTENTION, SessionBlock
from engine.state.ring import Neighbors

_GAP_BUCKETS = 16
_MINUTE_MS = 60_000.0

# Takes a block's number and its keys and values at the new positions [B, n, 2 * d]; returns those of all [B, L, 2 * d].
Recall = Callable[[int, Tensor], Tensor]


class SequenceEncoder(nn.Module):
    """At every position, a vector that points at the next item.

    Order enters as a bias on the attention: distance in events, gap in time, and whether two events share a session.
    Without absolute positions an event's keys don't change as the window slides.

    Args:
        local_heads: the first heads, which see only the latest `local_window` events up to their own position, for what
            is near; the others see the whole window, for what is far.
        by_kind: whether a query can be asked for with a goal: the next item by an event of one kind.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        blocks: int,
        window: int,
        kinds: int,
        dropout: float,
        *,
        expansion: int = 2,
        gated: bool = False,
        relative_time: bool = True,
        local_heads: int = 0,
        local_window: int = 8,
        by_kind: bool = False,
    ) -> None:
        super().__init__()
        self.window = window
        self.local_heads = local_heads
        self.local_window = local_window
        self.relative_time = relative_time
        self.kind = nn.Embedding(kinds, dim)
        self.start = nn.Embedding(2, dim)  # 1 at the first event of a session
        self.distance_bias = nn.Embedding(window, heads)
        self.gap_bias = nn.Embedding(_GAP_BUCKETS, heads)
        self.session_bias = nn.Embedding(2, heads)
        for embedding in (self.kind, self.start, self.distance_bias, self.gap_bias, self.session_bias):
            nn.init.normal_(embedding.weight, std=0.02)
        if not relative_time:
            self.gap_bias.requires_grad_(False).weight.zero_()
            self.session_bias.requires_grad_(False).weight.zero_()
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(SessionBlock(dim, heads, dropout, expansion, gated) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        nn.init.eye_(self.out.weight)  # a query starts out in the space of the items
        self.goal = nn.Embedding(kinds, dim) if by_kind else None
        if self.goal is not None:
            nn.init.zeros_(self.goal.weight)  # every goal starts out as any kind

    @property
    def reach(self) -> int:
        """Latest events that a query depends on: each block sees `window - 1` further back."""
        return len(self.blocks) * (self.window - 1) + 1

    def forward(self, table: Tensor, events: Neighbors, goal: Tensor | int | None = None) -> Tensor:
        """Encodes sessions.

        Args:
            table: [M, d] item embeddings, normalised; `events.row` [B, L] points into it.
            events: the first of each counts as the start of a session.
            goal: as in `query`.

        Returns:
            [B, L, d] normalised; what stands at padded positions has no meaning.
        """
        return self.query(self.states(table, events), goal)

    def latest(self, table: Tensor, history: Neighbors, goal: Tensor | int | None = None) -> Tensor:
        """[B, d] the query after the last event; arguments as in `forward`, which computes all the others, too."""
        # One more than the reach, which alone says whether the first within it starts a session.
        events = history.last(self.reach + 1)
        return self.query(self.newest(table, events, events.row.shape[1]), goal)

    def newest(self, table: Tensor, events: Neighbors, new: int, recall: Recall = lambda _, own: own) -> Tensor:
        """[B, d] the state at the last position.

        Args:
            events: those that any of the new ones sees.
            new: n, how many of the last positions to compute.
            recall: supplies what is kept of the positions before; default: all are new.
        """
        x = self._inputs(table, events.last(new + 1))[:, -new:]  # [B, n, d]
        bias = self._bias(events, new)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, SessionBlock)
            kept = recall(number, block.keys_values(x))
            if number == len(self.blocks) - 1:  # nobody asks for the others
                x, bias = x[:, -1:], bias[:, :, -1:]
            x = block.attend(x, kept, bias)
        return x[:, -1]

    def query(self, states: Tensor, goal: Tensor | int | None = None) -> Tensor:
        """[..., d] normalised, from `states` [..., d].

        Args:
            goal: kind of the event whose item is looked for, one for all or [...] int64; None: any. A model without
                goals (`by_kind`) has only that.
        """
        x = self.norm(states)
        if goal is not None:
            assert self.goal is not None, "the model has no goals"
            x = x + self.goal(torch.as_tensor(goal, device=x.device))
        return F.normalize(self.out(x), dim=-1)

    def states(self, table: Tensor, events: Neighbors) -> Tensor:
        """[B, L, d] what every goal's query is made from; arguments as in `forward`."""
        x = self._inputs(table, events)
        bias = self._bias(events)
        for block in self.blocks:
            x = block(x, bias)
        return x

    def _inputs(self, table: Tensor, events: Neighbors) -> Tensor:
        """[B, L, d] what goes into the first block."""
        item = table[events.row.clamp_min(0)] * math.sqrt(table.shape[-1])
        kind = events.kind.clamp(0, self.kind.num_embeddings - 1)
        starts = torch.ones_like(events.row)
        # A late event has session 0, as an empty column has: the first event must start a session all the same.
        other = (events.session[:, 1:] != events.session[:, :-1]) | ~events.mask[:, :-1]
        starts[:, 1:] = other.to(starts.dtype)
        return self.drop(item + self.kind(kind) + self.start(starts))

    def _bias(self, events: Neighbors, new: int | None = None) -> Tensor:
        """[B, H, n, L] of the last n positions (default: all), NO_ATTENTION where i may not see j."""
        length = events.row.shape[1]
        new = length if new is None else new
        position = torch.arange(length, device=events.row.device)
        distance = position[length - new :, None] - position  # [n, L], i - j
        bias = self.distance_bias(distance.clamp(0, self.window - 1))[None]  # [1, n, L, H]
        if self.relative_time:
            bias = bias + self._time_bias(events, new)
        seen = (distance >= 0) & (distance < self.window) & events.mask[:, None, :]  # [B, n, L]
        # A padded position sees itself, so that no row of the softmax is empty.
        seen = seen | (distance == 0)
        bias = bias.permute(0, 3, 1, 2).masked_fill(~seen[:, None], NO_ATTENTION)
        if self.local_heads:
            local = torch.arange(bias.shape[1], device=bias.device) < self.local_heads  # [H]
            bias = bias.masked_fill(local[:, None, None] & (distance >= self.local_window), NO_ATTENTION)
        return bias

    def _time_bias(self, events: Neighbors, new: int) -> Tensor:
        """[B, n, L, H] from the gap in time, and from whether both are of one session."""
        time_ms, session = events.time_ms[:, -new:, None], events.session[:, -new:, None]
        gap = (time_ms - events.time_ms[:, None, :]).clamp_min(0).float() / _MINUTE_MS
        bucket = torch.log2(gap + 1.0).to(torch.int64).clamp_max(_GAP_BUCKETS - 1)  # [B, n, L]
        same = (session == events.session[:, None, :]).to(torch.int64)
        # One small table for both: its gradient is the costly part of this bias.
        both = (self.gap_bias.weight[:, None] + self.session_bias.weight).flatten(0, 1)  # [gaps * 2, H]
        return F.embedding(bucket * 2 + same, both)
