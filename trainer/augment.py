"""Other readings of the same sessions, for sparse data: crop, mask, reorder (after Xie et al., ICDE 2022).

The encoder learns at every position of a window, and position i sees the inputs 0..i. So no reading may bring an event
to a position that is asked for it, or for one before it. A target never moves: it stays with the input it came after,
or it is left out. Every function returns its input itself where its probability is 0.

Shapes: B windows, L events in each, padded on the left.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engine.state.ring import Neighbors
from trainer.dataset import SessionBatch

_RUN = 4  # events that are shuffled together: near enough that their order may be chance


def crop(batch: SessionBatch, probability: float, generator: torch.Generator) -> SessionBatch:
    """Leaves of some windows a run of inputs, from a random one to the last, as if the user had begun there.

    A run that ended earlier would be no other reading: what stands behind a position is not seen from it, so cutting
    there would only lose targets.
    """
    if not probability:
        return batch
    first, length = _inputs(batch.events)
    begin = first + (_uniform(first, generator) * length).long()  # [B, 1]
    cut = (_uniform(first, generator) < probability) & (_positions(batch.events) < begin)  # [B, L]
    events = batch.events
    nothing = Neighbors.none(*events.row.shape)
    columns = (torch.where(cut, *both) for both in zip(nothing.columns(), events.columns(), strict=True))
    return replace(batch, events=Neighbors(*columns), target=batch.target.masked_fill(cut, -1))


def reorder(batch: SessionBatch, probability: float, generator: torch.Generator) -> SessionBatch:
    """Shuffles what happened in a short run of inputs of some windows; when it happened stays in place.

    Inside the run a position may now see what came after it, its own target for one. Its target is left out then: kept
    are those of positions that see no input from behind them, which the run's last position never does.
    """
    if not probability:
        return batch
    first, length = _inputs(batch.events)
    position = _positions(batch.events)  # [L]
    run = length.clamp_max(_RUN)
    begin = first + (_uniform(first, generator) * (length - run + 1)).long()  # [B, 1]
    inside = (_uniform(first, generator) < probability) & (position >= begin) & (position < begin + run)  # [B, L]
    drawn = begin + torch.rand(inside.shape, generator=generator) * run
    order = torch.where(inside, drawn, position.float()).argsort(dim=1, stable=True)  # [B, L]
    early = order.cummax(1).values > position  # sees what came later
    what = batch.events.arranged(order)
    events = replace(batch.events, row=what.row, kind=what.kind, weight=what.weight)
    return replace(batch, events=events, target=batch.target.masked_fill(early, -1))


def mask(events: Neighbors, probability: float, unknown: int, generator: torch.Generator) -> Neighbors:
    """Puts the item `unknown` in the place of some inputs.

    An event is hidden, not taken out. Were it absent, the target that came after it would have no input to stand at,
    and times and distances would tell of the gap; an unknown item is what the encoder meets in serving, too.
    """
    if not probability:
        return events
    hidden = events.mask & (torch.rand(events.row.shape, generator=generator) < probability)
    return replace(events, row=events.row.masked_fill(hidden, unknown))


def _inputs(events: Neighbors) -> tuple[Tensor, Tensor]:
    """[B, 1] position of the first input, and how many there are."""
    length = events.mask.sum(1, keepdim=True)
    return events.row.shape[1] - length, length


def _positions(events: Neighbors) -> Tensor:
    return torch.arange(events.row.shape[1])


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator)
