"""The order in which windows are learned from, and how to come back to any place in it.

Shapes: B windows of a step, W of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.state.graph import Graph, LiveGraph
from trainer.config import TrainSection
from trainer.dataset import Histories, Windows, cuts
from trainer.live_fold import insert
from trainer.replay import TrainingData
from trainer.walk import empty_graph


class WindowOrder(Iterator[tuple[LiveGraph | None, Windows]]):
    """Windows piece by piece in log order, in random order within each, again and again.

    Args:
        pieces: runs of the log (first, one past the last) that their targets lie in.
        linked: whether a graph comes with them, which holds exactly the events before the piece.
    """

    def __init__(
        self,
        data: TrainingData,
        histories: Histories,
        pieces: Sequence[tuple[int, int]],
        config: TrainSection,
        generator: torch.Generator,
        *,
        linked: bool,
    ) -> None:
        self._data, self._histories = data, histories
        self._pieces = pieces
        self._linked = linked
        self._batch = config.batch
        # The first targets of a window see fewer events than at serving; a quarter of overlap bounds that.
        self._stride = max(1, config.window * 3 // 4)
        self._generator = generator
        self._piece = -1
        self._graph: Graph | None = None
        self._windows: Windows | None = None
        self._order = torch.zeros(0, dtype=torch.int64)  # [W]
        self._at = 0  # windows of the piece that were given

    def __next__(self) -> tuple[LiveGraph | None, Windows]:
        """The next B windows, fewer at the end of a piece."""
        while self._windows is None or self._at >= len(self._order):
            self._enter((self._piece + 1) % len(self._pieces))
            assert self._windows is not None
            self._order, self._at = torch.randperm(len(self._windows), generator=self._generator), 0
        part = self._order[self._at : self._at + self._batch]
        self._at += self._batch
        return self._graph, self._windows.select(part)

    def state(self) -> dict[str, Any]:
        """The place in the order; the generator has a state of its own."""
        return {"piece": self._piece, "order": self._order, "at": self._at}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a place; only of a new order."""
        for piece in range(state["piece"] + 1):
            self._enter(piece)
        order: Tensor = state["order"]
        self._order, self._at = order, state["at"]

    def _enter(self, piece: int) -> None:
        if self._linked:
            if self._graph is None or piece == 0:
                self._graph = empty_graph(self._data)
            else:
                insert(self._graph, self._data.log.slice(*self._pieces[self._piece]))
        self._piece = piece
        self._windows = self._histories.windows(*self._pieces[piece], self._stride)


def plain_order(
    data: TrainingData, histories: Histories, end: int, config: TrainSection, generator: torch.Generator
) -> WindowOrder:
    """Windows of events 0..end-1 as one piece, without a graph."""
    return WindowOrder(data, histories, [(0, end)], config, generator, linked=False)


def linked_order(
    data: TrainingData, histories: Histories, end: int, config: TrainSection, generator: torch.Generator
) -> WindowOrder:
    """Windows of events 0..end-1 in pieces, each with the graph as of its start."""
    return WindowOrder(data, histories, cuts(end, config.chunks), config, generator, linked=True)
