"""The activations of the graph encoder for every user and item, refreshed row by row.

An event (user, item, previous item) changes three things at once: the user's vector, and the embeddings of the two
items, whose rings it entered. They are recomputed in the step that folds the event. A user's vector also enters the
embeddings of all items whose rings name the user; those follow in later steps, a few at a time, and only once the
vector has moved by more than epsilon since it last spread. They are found by one scan of the rings for all users that
moved, made whenever the items of the last scan are done: its cost is spread over many steps. A changed catalog record,
and an item that is forgotten, concern all users that had the item: they, too, follow a few at a time, before any item.

Shapes: N items, U users, R rows to refresh, d width.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import InferenceConfig
from engine.features.table import HABITS
from engine.inference.bulk import edges_of, embed_all
from engine.inference.dirty import DirtyRows, Rows
from engine.inference.graph_forward import GraphForward
from engine.model.device import CPU
from engine.model.gnn import USER_NEIGHBORS
from engine.model.recommender import Recommender
from engine.state.graph import LiveGraph
from engine.state.kernels import compiled
from engine.state.state import Folded
from engine.state.table import reserve

_log = logging.getLogger(__name__)

_ROUNDING = 1e-5  # by which two computations of one entry of a layer may differ; entries are normed to about 1
_BUILD_ROWS = 512  # in one forward of a build: a few ms of a core that a list may wait for


class Embedder:
    """Cached activations of one model.

    Args:
        users, items: U and N, the rows there may be; memory is taken as they come into use.

    Attributes:
        items: [N, d] layer 2, the normalised item embeddings.
        base: [N, d] layer 0 of the items.
        known: [N] whether anything tells an item from others; see `GraphEncoder.knows`.
        habit: [N, HABITS] what the model knows of how each item is had again.
        users: [U, d] layer 1.
    """

    def __init__(
        self, model: Recommender, vocabulary: Sequence[str], config: InferenceConfig, users: int, items: int
    ) -> None:
        dim = model.shape.dim
        self._model = model.graph
        self._forward = GraphForward.of(model.graph) or model.graph
        self._habit = model.habit
        self._config = config
        self._number: Mapping[str, int] = {name: number for number, name in enumerate(vocabulary, start=1)}
        self.items, self.base = reserve(items, (dim,), torch.float32), reserve(items, (dim,), torch.float32)
        self.habit = reserve(items, (HABITS,), torch.float32)
        self.known = reserve(items, (), torch.bool)
        self.users = reserve(users, (dim,), torch.float32)
        self._spread = reserve(users, (dim,), torch.float32)  # [U, d] each user's vector when its items last followed
        self._stale = DirtyRows()  # users to recompute because an item of theirs is another, or gone
        self._moved = DirtyRows()  # users whose items are still to be found
        self._waiting = DirtyRows()  # items to recompute because a neighbor moved

    @property
    def backlog(self) -> int:
        """Users and items that still have to spread or to follow."""
        return len(self._stale) + len(self._moved) + len(self._waiting)

    def build_pieces(self, items: int, users: int) -> int:
        """How often `build` asks whether it is stopped, for so many items and users."""
        size = min(self._config.chunk_rows, _BUILD_ROWS)
        return 2 * -(-items // size) + (-(-users // size) if self._model.linked else 0)

    @torch.inference_mode()
    def build(
        self,
        graph: LiveGraph,
        item_ids: Sequence[str],
        content: Tensor,
        users: Tensor,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Computes everything anew for `users` [R], rising, and all of `item_ids`, or until `stopped`.

        Args:
            stopped: asked now and then; it may also rest.
        """
        size = min(self._config.chunk_rows, _BUILD_ROWS)
        device = torch.device(self._config.device)
        if device != CPU and self._build_on(device, graph, item_ids, content, users, size, stopped):
            return
        items = np.arange(len(item_ids))
        for part in _parts(items, size):
            if stopped():
                return
            self._refresh_base(part, item_ids, content)
        if self._model.linked:
            for part in _parts(users.numpy(), size):
                if stopped():
                    return
                self._refresh_users(graph, part)
            self._spread[users] = self.users[users]
        for part in _parts(items, size):
            if stopped():
                return
            self._refresh_items(graph, part)

    def _build_on(
        self,
        device: torch.device,
        graph: LiveGraph,
        item_ids: Sequence[str],
        content: Tensor,
        users: Tensor,
        size: int,
        stopped: Callable[[], bool],
    ) -> bool:
        """`build` on another device; False where its memory is too small."""
        word = self._words(item_ids)
        try:
            made = embed_all(self._model, device, graph, word, content, users, size, stopped)
        except torch.OutOfMemoryError as error:
            _log.warning(
                "embedding on the CPU, because the memory of inference.device %s is too small: %s", device, error
            )
            return False
        if made is not None:
            self.base[: len(word)], self.items[: len(word)] = made.base, made.items
            self.habit[: len(word)] = self._habit[word]
            self.known[: len(word)] = self._model.knows(word, content[: len(word)])
            self.users[users] = self._spread[users] = made.users
        return True

    @torch.inference_mode()
    def refresh(self, graph: LiveGraph, item_ids: Sequence[str], content: Tensor, folded: Folded) -> Rows:
        """Follows one folded batch: what it touched itself is recomputed now, what lies behind is left to `spread`.

        Returns:
            [R] items whose embeddings were recomputed, each once, rising.
        """
        rebased = np.unique(np.concatenate([folded.new_items, folded.catalog]))
        if not self._model.linked:
            self._refresh_base(rebased, item_ids, content)
            self._refresh_items(graph, rebased)
            return rebased
        self._forget(folded.gone_users)
        self._rebase(graph, rebased, folded.new_items.numpy(), item_ids, content)
        self._stale.add(folded.stale_users.numpy())
        users = np.unique(folded.user.numpy())
        self._stale.discard(users)
        self._follow(graph, users)
        previous = folded.previous.numpy()
        touched = np.unique(np.concatenate([rebased, folded.item.numpy(), previous[previous >= 0]]))
        self._waiting.discard(touched)
        self._refresh_items(graph, touched)
        return touched

    @torch.inference_mode()
    def spread(self, graph: LiveGraph, steps: int = 1) -> Rows:
        """Recomputes up to `spread_rows` rows for each of `steps`, users before items, the longest waiting first.

        Returns:
            [R] the items.
        """
        most = steps * self._config.spread_rows
        users = self._stale.take(most)
        self._follow(graph, users)
        if self._moved and not self._waiting:
            moved = torch.from_numpy(self._moved.take(len(self._moved)))
            self._waiting.add(graph.item_users.naming(moved).numpy())
        rows = self._waiting.take(most - len(users))
        self._refresh_items(graph, rows)
        return rows

    def _forget(self, users: Tensor) -> None:
        """Nothing stays of users that are gone; the items they left in follow when it is their turn."""
        if len(users) == 0:
            return
        self.users[users] = 0
        self._spread[users] = 0
        self._stale.discard(users.numpy())
        self._moved.add(users.numpy())

    def _rebase(self, graph: LiveGraph, rows: Rows, new: Rows, item_ids: Sequence[str], content: Tensor) -> None:
        """Recomputes layer 0 of `rows`; queues the users and items that read it.

        A changed catalog record is rare, so its readers are found by a scan of the rings.
        """
        if len(rows) == 0:
            return
        base = self.base.numpy()
        before = base[rows]
        self._refresh_base(rows, item_ids, content)
        # A product of other rows rounds otherwise, which is no change. What is so little off stays as its readers had
        # it, so that small changes cannot add up unseen.
        same = (np.abs(base[rows] - before) <= _ROUNDING).all(axis=1)
        base[rows[same]] = before[same]
        changed = rows[~same]
        known = changed[~np.isin(changed, new)]  # a new item has no readers that are not recomputed anyway
        if len(known):
            self._waiting.add(graph.item_next.naming(torch.from_numpy(known)).numpy())
            self._stale.add(graph.user_items.naming(torch.from_numpy(known)).numpy())

    def _follow(self, graph: LiveGraph, users: Rows) -> None:
        """Recomputes distinct `users` and notes those that moved far enough."""
        if len(users) == 0:
            return
        self._refresh_users(graph, users)
        moved = np.empty(len(users), np.int64)
        count = _settle_moved(users, self.users.numpy(), self._spread.numpy(), self._config.epsilon, moved)
        self._moved.add(moved[:count])

    def _refresh_base(self, rows: Rows, item_ids: Sequence[str], content: Tensor) -> None:
        for part in _parts(rows, self._config.chunk_rows):
            word = self._words(item_ids[row] for row in part.tolist())
            at = torch.from_numpy(part)
            self.base[at] = self._model.base(word, content[at])
            self.habit[at] = self._habit[word]
            self.known[at] = self._model.knows(word, content[at])

    def _words(self, item_ids: Iterable[str]) -> Tensor:
        """[N] int64 vocabulary number of each, 0 where it has none."""
        return torch.tensor([self._number.get(item_id, 0) for item_id in item_ids], dtype=torch.int64)

    def _refresh_users(self, graph: LiveGraph, rows: Rows) -> None:
        for part in _parts(rows, self._config.chunk_rows):
            edges = graph.user_items.latest(torch.from_numpy(part), USER_NEIGHBORS)
            self.users.numpy()[part] = self._forward.users(self.base, edges).numpy()

    def _refresh_items(self, graph: LiveGraph, rows: Rows) -> None:
        for part in _parts(rows, self._config.chunk_rows):
            at = torch.from_numpy(part)
            base = torch.from_numpy(self.base.numpy()[part])
            users, following = edges_of(self._model, graph, at)
            self.items.numpy()[part] = self._forward.items(base, self.users, users, self.base, following).numpy()


def _parts(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


@compiled("i8(i8[::1], f4[:,::1], f4[:,::1], f8, i8[::1])")
def _settle_moved(
    users: Rows, vectors: NDArray[np.float32], spread: NDArray[np.float32], epsilon: float, moved: Rows
) -> int:
    """Fills `moved` with those of `users` whose vector is more than `epsilon` from what has spread, which it becomes.

    Returns:
        How many.
    """
    count = 0
    for user in users:
        square = np.float32(0)
        for i in range(vectors.shape[1]):
            square += (vectors[user, i] - spread[user, i]) ** 2
        if math.sqrt(square) > epsilon:
            spread[user] = vectors[user]
            moved[count] = user
            count += 1
    return count
