"""Steps that pull the encoders' weights down their gradients, and the mean over them.

A step on a catalog of a million items uses some thousands of them. Where the others have no gradient, as with a sampled
loss, only the rows that a step used are moved: the moments of Adam wait with the rest (lazy Adam, as
`torch.optim.SparseAdam` has it). With all rows a step takes seconds, nearly all of them for rows that do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from engine.model.recommender import Recommender
from trainer.average import Average

_MAX_NORM = 1.0  # of all gradients together
_CLIP_EPSILON = 1e-6


class Optimizer:
    """AdamW, of all weights but the ranker's.

    Args:
        by_rows: moves only the rows of the learned ids that a step used.

    Attributes:
        learned: the weights that it moves.
        average: their mean over the steps.
    """

    def __init__(self, model: Recommender, rate: float, weight_decay: float, by_rows: bool) -> None:
        table = model.graph.identity
        table.sparse = by_rows
        self.learned = [p for name, p in model.named_parameters() if not name.startswith("ranker.")]
        self._table = next(p for p in self.learned if p is table.weight) if by_rows else None
        self.average = Average(self.learned, self._table)
        groups = parameter_groups(model, weight_decay, without=self._table)
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate)]
        if self._table is not None:
            self._parts.append(torch.optim.SparseAdam([self._table], lr=rate))

    def clear(self) -> None:
        """Forgets all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """One step by the gradients that there are, shortened where they are longer together than they may be."""
        rows = self._clip()
        self.average.before_step(rows)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
        self.average.update(rows)

    def state(self) -> list[dict[str, Any]]:
        """The moments and step counts of Adam, for a checkpoint; the mean has a state of its own."""
        return [part.state_dict() for part in self._parts]

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        """Goes on from `state`."""
        for part, saved in zip(self._parts, state, strict=True):
            part.load_state_dict(saved)

    def _clip(self) -> Tensor | None:
        """Shortens the gradients; gives the rows of the table that have one, or None where all are moved."""
        if self._table is None:
            torch.nn.utils.clip_grad_norm_(self.learned, _MAX_NORM)
            return None
        rows = torch.zeros(0, dtype=torch.int64)
        if self._table.grad is not None:
            self._table.grad = self._table.grad.coalesce()
            rows = self._table.grad.indices()[0]
        gradients = [p.grad.values() if p.grad.is_sparse else p.grad for p in self.learned if p.grad is not None]
        if gradients:
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients]))
            for one in gradients:
                one.mul_((_MAX_NORM / (norm + _CLIP_EPSILON)).clamp(max=1.0))
        return rows


def parameter_groups(
    model: Recommender, weight_decay: float, without: Parameter | None = None
) -> list[dict[str, object]]:
    """Matrices decay; biases, norms, embeddings and the temperature don't."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    encoders = [p for name, p in model.named_parameters() if not name.startswith("ranker.") and p is not without]
    decays = [p for p in encoders if p.ndim >= 2 and id(p) not in embeddings]
    rest = [p for p in encoders if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
