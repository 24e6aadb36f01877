"""One new position of a session through all blocks, compiled: what a click costs where the past is kept.

The same as `SequenceEncoder.newest` for a handful of positions, without a tensor call for each layer.

Shapes: B sessions, L events of each (oldest first, padded on the left), W events that a position sees, H heads,
d width, e width of the feed-forward, N blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.model.layers import SessionBlock
from engine.model.sequence import SequenceEncoder
from engine.numeric.dense import exp_all, floats, gelu_all, layer_norm, project
from engine.state.kernels import compiled
from engine.state.ring import Neighbors

_MINUTE_MS = np.float32(60_000.0)  # as in `SequenceEncoder`
_SMALLEST_NORM = 1e-12  # as torch.nn.functional.normalize

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class SessionForward:
    """The weights of a session encoder, as the compiled pass takes them.

    Attributes:
        input: [kinds + 2, d] of each kind; of an event that goes on with a session, and of one that starts it.
        distance: [W, H] bias by events back, low where a local head does not look.
        gap: [gaps * 2, H] bias by gap in time and whether both events are of one session; empty: there is none.
        norms: [N, 4, d] gain and bias of the norm before attention, and of that before the feed-forward.
        qkv, out, up, down: [N, 1 + d, 3 * d], [N, 1 + d, d], [N, 1 + d, e] and [N, 1 + e, d], biases first.
        goal: [1 + kinds, d] of any kind, and of each; or [1, d].
        last: [2, d] gain and bias of the norm after all blocks.
        ask: [1 + d, d] what makes a query of that, the bias first.
    """

    heads: int
    eps: float
    input: Floats
    distance: Floats
    gap: Floats
    norms: Floats
    qkv: Floats
    out: Floats
    up: Floats
    down: Floats
    goal: Floats
    last: Floats
    ask: Floats

    @classmethod
    def of(cls, encoder: SequenceEncoder) -> SessionForward | None:
        """None where the blocks are gated, or multiply in fewer bits: those have layers of their own."""
        blocks = [block for block in encoder.blocks if isinstance(block, SessionBlock) and block.gate_forward is None]
        layers = [[block.attention.qkv, block.attention.out, block.forward_in, block.forward_out] for block in blocks]
        if len(blocks) < len(encoder.blocks) or not all(isinstance(one, nn.Linear) for some in layers for one in some):
            return None
        distance = encoder.distance_bias.weight.detach().clone()
        distance[encoder.local_window :, : encoder.local_heads] = -torch.inf
        both = (encoder.gap_bias.weight[:, None] + encoder.session_bias.weight).detach().flatten(0, 1)
        goals = [torch.zeros(1, encoder.out.in_features), *([] if encoder.goal is None else [encoder.goal.weight])]
        qkv, out, up, down = (floats(torch.stack([_affine(some[at]) for some in layers])) for at in range(4))
        norms = [
            torch.stack(
                [one.norm_attention.weight, one.norm_attention.bias, one.norm_forward.weight, one.norm_forward.bias]
            )
            for one in blocks
        ]
        return cls(
            blocks[0].attention.heads,
            blocks[0].norm_attention.eps,
            floats(torch.cat([encoder.kind.weight, encoder.start.weight])),
            floats(distance),
            floats(both if encoder.relative_time else both[:0]),
            floats(torch.stack(norms)),
            qkv,
            out,
            up,
            down,
            floats(torch.cat(goals)),
            floats(torch.stack([encoder.norm.weight, encoder.norm.bias])),
            floats(_affine(encoder.out)),
        )

    def query(self, states: Floats, goal: int | None) -> Floats:
        """[B, d] `SequenceEncoder.query` of states [B, d]."""
        made = np.empty_like(states)
        _query(states, self.last, self.eps, self.goal[0 if goal is None else 1 + goal], self.ask, made)
        return made

    def append(
        self,
        events: Neighbors,
        table: Tensor,
        slots: Longs,
        new: Longs,
        count: Longs,
        kept: Tensor,
        room: int,
        state: Tensor,
    ) -> None:
        """Computes the last `new` [B] positions of each session.

        Args:
            events: [B, L] with all that any of the new positions sees.
            table: [M, d] item embeddings.
            slots, count: [B] where the session lies in `kept`, and its positions so far, the new ones included.
            kept: [slots * N * room, 2 * d] keys and values; `room` positions of a session and block, in a ring.
            state: [slots, d] gets the state at the last position.
        """
        _append(
            events.row.numpy(), events.time_ms.numpy(), events.kind.numpy(), events.session.numpy(),
            table.numpy(), slots, new, count, kept.numpy(), room, state.numpy(),
            self.heads, self.eps, self.input, self.distance, self.gap, self.norms,
            self.qkv, self.out, self.up, self.down,
        )  # fmt: skip


@compiled("void(f4[:,::1], f4[:,::1], f4, f4[::1], f4[:,::1], f4[:,::1])", any_order=True)
def _query(states: Floats, last: Floats, eps: float, goal: Floats, ask: Floats, made: Floats) -> None:
    x = np.empty(states.shape[1], np.float32)
    for b in range(len(states)):
        layer_norm(states[b], last[0], last[1], eps, x)
        for i in range(len(x)):
            x[i] += goal[i]
        made[b] = ask[0]
        project(x, ask[1:], made[b])
        square = np.float32(0)
        for i in range(len(x)):
            square += made[b, i] * made[b, i]
        length = np.float32(max(math.sqrt(square), _SMALLEST_NORM))
        for i in range(len(x)):
            made[b, i] /= length


def _affine(layer: nn.Module) -> Tensor:
    """[1 + inputs, outputs] the bias, then the weight."""
    assert isinstance(layer, nn.Linear)
    return torch.cat([layer.bias[None], layer.weight.T])


@compiled("i8(i8, b1, i8)")
def gap_row(gap_ms: int, same: bool, gaps: int) -> int:
    """Row of `SessionForward.gap`, of `gaps` rows, for two events so far apart; `same`: both are of one session."""
    minutes = np.float32(max(gap_ms, 0)) / _MINUTE_MS
    bucket = int(min(np.log2(minutes + np.float32(1)), np.float32(gaps // 2 - 1)))
    return 2 * bucket + int(same)


@compiled(
    "void(i8[:,:], i8[:,:], i8[:,:], i4[:,:], f4[:,::1], i8[::1], i8[::1], i8[::1], f4[:,::1], i8, f4[:,::1],"
    " i8, f4, f4[:,::1], f4[:,::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1])",
    any_order=True,
)
def _append(
    row: Longs,
    time_ms: Longs,
    kind: Longs,
    session: Ints,
    table: Floats,
    slots: Longs,
    new: Longs,
    count: Longs,
    kept: Floats,
    room: int,
    state: Floats,
    heads: int,
    eps: float,
    input_: Floats,
    distance: Floats,
    gap: Floats,
    norms: Floats,
    qkv: Floats,
    out: Floats,
    up: Floats,
    down: Floats,
) -> None:
    length, d, window = row.shape[1], table.shape[1], len(distance)
    blocks, wide = len(qkv), up.shape[2]
    kinds, width = len(input_) - 2, d // heads
    scale, root = np.float32(1 / math.sqrt(width)), np.float32(math.sqrt(d))
    x, normed, mixed = np.empty(d, np.float32), np.empty(d, np.float32), np.empty(d, np.float32)
    asked, hidden = np.empty(3 * d, np.float32), np.empty(wide, np.float32)
    bias = np.empty((window, heads), np.float32)
    seen, score = np.empty(window, np.int64), np.empty(window, np.float32)
    for b in range(len(row)):
        for at in range(length - new[b], length):
            # What it sees, and how far that is: the same in every block.
            found = 0
            for j in range(max(0, at - window + 1), at + 1):
                if row[b, j] < 0 and j < at:
                    continue
                for h in range(heads):
                    bias[found, h] = distance[at - j, h]
                if len(gap):
                    apart = gap_row(time_ms[b, at] - time_ms[b, j], session[b, at] == session[b, j], len(gap))
                    for h in range(heads):
                        bias[found, h] += gap[apart, h]
                seen[found] = j
                found += 1
            vector = table[max(row[b, at], 0)]
            starts = 1 if at == 0 or row[b, at - 1] < 0 or session[b, at] != session[b, at - 1] else 0
            of_kind, of_start = input_[min(max(kind[b, at], 0), kinds - 1)], input_[kinds + starts]
            for i in range(d):
                x[i] = vector[i] * root + of_kind[i] + of_start[i]
            for n in range(blocks):
                ring = (slots[b] * blocks + n) * room
                newest = count[b] - 1 - (length - 1 - at)
                layer_norm(x, norms[n, 0], norms[n, 1], eps, normed)
                asked[:] = qkv[n, 0]
                project(normed, qkv[n, 1:], asked)
                kept[ring + newest % room] = asked[d:]
                if n == blocks - 1 and at < length - 1:  # nobody asks for it
                    continue
                mixed[:] = np.float32(0)
                for h in range(heads):
                    first, end = h * width, (h + 1) * width
                    most = np.float32(-np.inf)
                    for s in range(found):
                        key = kept[ring + (newest - (at - seen[s])) % room]
                        total = np.float32(0)
                        for i in range(first, end):
                            total += asked[i] * key[i]
                        score[s] = total * scale + bias[s, h]
                        most = max(most, score[s])
                    total = exp_all(score[:found], most)
                    for s in range(found):
                        share = score[s] / total
                        value = kept[ring + (newest - (at - seen[s])) % room]
                        for i in range(first, end):
                            mixed[i] += share * value[d + i]
                for i in range(d):
                    x[i] += out[n, 0, i]
                project(mixed, out[n, 1:], x)
                layer_norm(x, norms[n, 2], norms[n, 3], eps, normed)
                hidden[:] = up[n, 0]
                project(normed, up[n, 1:], hidden)
                gelu_all(hidden)
                for i in range(d):
                    x[i] += down[n, 0, i]
                project(hidden, down[n, 1:], x)
        if new[b] > 0:
            state[slots[b]] = x
