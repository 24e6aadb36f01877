"""What the encoders learn: which item comes next at every position of every window.

Shapes: B windows, L events in each, N items, P positions with a target, A rows of a step, M negatives, d width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engine.state.graph import LiveGraph
from trainer.augment import mask
from trainer.config import Recipe
from trainer.dataset import SessionBatch
from trainer.forward import Dropped, ItemForward, in_half, queries
from trainer.losses import full_softmax, sampled_softmax, session_mask
from trainer.negatives import NegativeSampler
from trainer.replay import TrainingData


class Objective:
    """Cross-entropy of each target among all items that the log has, or among some that are drawn where they are many.

    Args:
        end: events 0..end-1 are learned from.
        generator: draws negatives.
        dropped: what is hidden from the model.

    Attributes:
        is_full: whether a step compares all items, so that each of them has a gradient.
    """

    def __init__(
        self,
        forward: ItemForward,
        data: TrainingData,
        end: int,
        config: Recipe,
        generator: torch.Generator,
        dropped: Dropped,
    ) -> None:
        self._forward, self._config = forward, config
        self._generator, self._dropped = generator, dropped
        count = torch.bincount(data.log.item[:end], minlength=data.items)
        self._rows = (count > 0).nonzero().squeeze(1)
        self._sampler = NegativeSampler(
            count.masked_fill((count == 0) | torch.from_numpy(data.deleted), -1), config.uniform_share, config.negatives
        )
        self.is_full = len(self._rows) <= config.full_softmax
        self._place = torch.full((data.items,), -1)

    def draw(self, linked: bool) -> Tensor | None:
        """[M] negatives of a step; None where all items are compared, as far as they have no neighbors to read."""
        return None if self.is_full and not linked else self._sampler.draw(self._generator)

    def __call__(self, batch: SessionBatch, graph: LiveGraph | None, negatives: Tensor | None) -> Tensor:
        """The loss of a step; without a graph, as if no item had neighbors."""
        learns = batch.target >= 0  # [B, L]
        target = batch.target[learns]  # [P]
        used = torch.cat([batch.events.row[batch.events.mask], target])
        rows = torch.cat([used, self._rows if negatives is None else negatives]).unique()  # [A]
        place = self._place
        place[rows] = torch.arange(len(rows))
        asked, table = self._encoded(batch, rows, graph)
        device = self._forward.device
        wanted = place[target].to(device)
        if negatives is None:
            return torch.stack([full_softmax(query, table, wanted) for query in asked]).mean()
        masked = session_mask(batch.target, batch.target_session, negatives, len(place))[learns].to(device)
        correction = (self._config.popularity_share * self._sampler.log_inclusion[negatives]).to(device)
        others = place[negatives].to(device)
        losses = []
        for query in asked:
            items = table.to(query.dtype)
            positive = (query * items[wanted]).sum(-1).float()
            negative = (query @ items[others].T).float()  # [P, M]
            losses.append(sampled_softmax(positive, negative, correction, masked))
        return torch.stack(losses).mean()

    def _encoded(self, batch: SessionBatch, rows: Tensor, graph: LiveGraph | None) -> tuple[list[Tensor], Tensor]:
        """Scaled queries [P, d] at the positions that have a target, and the table [A, d] of `rows`."""
        model, config, device = self._forward.model, self._config, self._forward.device
        events = batch.events
        events = replace(events, row=torch.where(events.mask, self._place[events.row.clamp_min(0)], -1))
        learns, kind = (batch.target >= 0).to(device), batch.target_kind.to(device)
        with in_half(device, config.half):
            table = self._forward(rows, graph, self._dropped).float()
            known = table
            if config.augment_mask:
                events = mask(events, config.augment_mask, len(table), self._dropped.generator)
                known = torch.cat([table, self._forward.unknown().float()])
            asked = queries(model, known, events.to(device), kind)
            scaled = [model.logits(query[learns].float()) for query in asked]
        return [query.bfloat16() if config.half else query for query in scaled], table
