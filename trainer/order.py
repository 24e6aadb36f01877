"""The order in which windows are learned from, and how to come back to any place in it.

Shapes: B windows of a step, W of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.state.graph import Graph, LiveGraph
from trainer.config import Recipe
from trainer.dataset import Histories, Windows, cuts
from trainer.live_fold import insert
from trainer.replay import TrainingData
from trainer.walk import empty_graph

_BUCKET = 16  # steps whose windows are sorted by length, so that those of one step need little padding


class WindowOrder(Iterator[tuple[LiveGraph | None, Windows]]):
    """Windows piece by piece in log order, in random order within each, again and again.

    Windows of similar length make up a step, which has as many inputs as any other, not as many windows: the loss is a
    mean over positions, and those of short windows must weigh no more than others.

    Args:
        pieces: runs of the log (first, one past the last) that their targets lie in.
        linked: whether a graph comes with them, which holds exactly the events before the piece.
    """

    def __init__(
        self,
        data: TrainingData,
        histories: Histories,
        pieces: Sequence[tuple[int, int]],
        config: Recipe,
        generator: torch.Generator,
        *,
        linked: bool,
    ) -> None:
        self._data, self._histories = data, histories
        self._pieces = pieces
        self._linked = linked
        self._batch, self._window = config.batch, config.window
        self._generator = generator
        self._piece = -1
        self._graph: Graph | None = None
        self._windows: Windows | None = None
        self._entered = generator.get_state()  # when the piece began
        self._steps: list[Tensor] = []  # the windows of each step of the piece
        self._at = 0  # steps of the piece that were given

    def __len__(self) -> int:
        """Steps of one pass over all pieces, give or take a few."""
        return sum(-(-len(self._windows_of(piece, None)[0]) // self._batch) for piece in self._pieces)

    def __next__(self) -> tuple[LiveGraph | None, Windows]:
        """The windows of the next step."""
        while self._windows is None or self._at >= len(self._steps):
            self._enter((self._piece + 1) % len(self._pieces))
        assert self._windows is not None
        part = self._steps[self._at]
        self._at += 1
        return self._graph, self._windows.select(part)

    def state(self) -> dict[str, Any]:
        """The place in the order; the generator as it is now has a state of its own."""
        return {"piece": self._piece, "entered": self._entered, "at": self._at}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a place; only of a new order. The generator is left as it was when the piece began."""
        for piece in range(state["piece"]):
            self._link(piece)
        self._generator.set_state(state["entered"])
        if state["piece"] >= 0:
            self._enter(state["piece"])
        self._at = state["at"]

    def _windows_of(self, piece: tuple[int, int], generator: torch.Generator | None) -> tuple[Windows, Tensor]:
        """The windows of a piece, and [W] how many inputs each has; those without any, of first events, are gone."""
        windows = self._histories.windows(*piece, self._window, generator)
        length = self._histories.length(windows, self._window)
        some = (length > 0).nonzero().squeeze(1)
        return windows.select(some), length[some]

    def _link(self, piece: int) -> None:
        """Brings the graph to the start of a piece."""
        if self._linked:
            if self._graph is None or piece == 0:
                self._graph = empty_graph(self._data)
            else:
                insert(self._graph, self._data.log.slice(*self._pieces[self._piece]))
        self._piece = piece

    def _enter(self, piece: int) -> None:
        self._link(piece)
        self._entered = self._generator.get_state()
        self._windows, length = self._windows_of(self._pieces[piece], self._generator)
        order = torch.randperm(len(self._windows), generator=self._generator)
        inputs = max(1.0, self._batch * float(length.float().mean())) if len(length) else 1.0
        steps: list[Tensor] = []
        for some in order.split(self._batch * _BUCKET):
            some = some[length[some].argsort(stable=True)]
            step = (length[some].cumsum(0) / inputs).ceil().to(torch.int64)
            steps.extend(some.split(step.unique_consecutive(return_counts=True)[1].tolist()))
        self._steps = [steps[at] for at in torch.randperm(len(steps), generator=self._generator).tolist()]
        self._at = 0


def plain_order(
    data: TrainingData, histories: Histories, end: int, config: Recipe, generator: torch.Generator
) -> WindowOrder:
    """Windows of events 0..end-1 as one piece, without a graph."""
    return WindowOrder(data, histories, [(0, end)], config, generator, linked=False)


def linked_order(
    data: TrainingData, histories: Histories, end: int, config: Recipe, generator: torch.Generator
) -> WindowOrder:
    """Windows of events 0..end-1 in pieces, each with the graph as of its start."""
    return WindowOrder(data, histories, cuts(end, config.chunks), config, generator, linked=True)
