"""The generation that serves, and the one before it, at rest for a roll back.

At rest a generation costs its memory and a note of the rows that were folded since: it computes nothing. To serve again
it catches up with the note, which takes as long as the rows in it, not as long as the catalog: right after a bad push
that is next to nothing. Following every batch would double what each event costs, for a roll back that hardly ever
comes; building anew from the weights would have the bad model serve for the length of a push.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.generation import Generation
from engine.inference.dirty import DirtyRows
from engine.state.state import Folded, State

_EMPTY = torch.zeros(0, dtype=torch.int64)


class RollBackRefused(RuntimeError):
    """There is nothing to roll back to, or another version serves than the caller expected."""


class StaleVersion(ValueError):
    """A pushed version is not greater than all that came before."""


class Missed:
    """Rows that were folded since a moment and that a generation still has to follow, each once."""

    def __init__(self) -> None:
        # In the order in which they are followed: a user is made of items, an item of users.
        self._gone, self._new, self._catalog = DirtyRows(), DirtyRows(), DirtyRows()
        self._users, self._items = DirtyRows(), DirtyRows()
        self._timed = DirtyRows()

    def __len__(self) -> int:
        return sum(map(len, (self._gone, self._new, self._catalog, self._users, self._items, self._timed)))

    def add(self, folded: Folded) -> None:
        """Notes what a batch changed."""
        self._gone.add(folded.gone_users.numpy())
        self._new.add(folded.new_items.numpy())
        self._catalog.add(folded.catalog.numpy())
        self._users.add(folded.stale_users.numpy())
        self._users.add(folded.user.numpy())
        self._items.add(folded.item.numpy())
        self._items.add(folded.previous[folded.previous >= 0].numpy())
        self._timed.add(folded.timed.numpy())

    def take(self, limit: int) -> Folded:
        """Removes and returns up to `limit` rows, as though one batch had changed them."""
        gone, limit = _taken(self._gone, limit)
        new, limit = _taken(self._new, limit)
        catalog, limit = _taken(self._catalog, limit)
        users, limit = _taken(self._users, limit)
        items, limit = _taken(self._items, limit)
        timed, limit = _taken(self._timed, limit)
        return Folded(
            _EMPTY, users, items, _EMPTY, _EMPTY.int(), catalog, _EMPTY, new, gone, _EMPTY, _EMPTY, timed
        )  # fmt: skip


def _taken(rows: DirtyRows, limit: int) -> tuple[Tensor, int]:
    taken = rows.take(limit)
    return torch.from_numpy(taken), limit - len(taken)


class Aside:
    """A generation that does not serve, and what it has missed."""

    def __init__(self, generation: Generation, missed: Missed) -> None:
        self.generation = generation
        self.missed = missed

    def catch_up(self, state: State, limit: int) -> int:
        """Follows up to `limit` rows of what was missed; returns how many are left."""
        self.generation.follow(state, self.missed.take(limit))
        return len(self.missed)


class Generations:
    """All methods are for the engine's thread.

    Attributes:
        serving: None before the first model.
        previous: the one that served before it; at most one.
        building: what one that is being built misses; None where none is.
        versions: in the order in which they served; one that was rolled back to comes again.
    """

    def __init__(self) -> None:
        self.serving: Generation | None = None
        self.previous: Aside | None = None
        self.versions: list[int] = []
        self.building: Missed | None = None

    @property
    def newest(self) -> int:
        """The greatest version that has served, 0 before the first: a rolled back one's number is not given again."""
        return max(self.versions, default=0)

    def follow(self, state: State, folded: Folded) -> int:
        """Brings the serving one up to date and notes the batch for all others; returns how many rows that took."""
        if self.building is not None:
            self.building.add(folded)
        if self.previous is not None:
            self.previous.missed.add(folded)
        return self.serving.follow(state, folded) if self.serving else 0

    def begin(self) -> None:
        """Notes what is folded from now on, for a generation that is being built; one at a time."""
        self.building = Missed()

    def give_up(self) -> None:
        """The generation that is being built will not come."""
        self.building = None

    def adopt(self, state: State, built: Aside) -> Generation | None:
        """Makes a generation live, whatever it has missed until now included.

        Returns:
            The one before the previous, which is nobody's any more: its index is to be closed.
        """
        built.catch_up(state, len(built.missed))
        dropped = self.previous
        self.previous = Aside(self.serving, Missed()) if self.serving else None
        self.serving, self.building = built.generation, None
        self.versions.append(built.generation.version)
        return dropped.generation if dropped else None

    def check_roll_back(self, expected: int | None) -> Aside:
        """The previous generation.

        Raises:
            RollBackRefused: there is none, or another version than `expected` serves.
        """
        serving = self.serving.version if self.serving else 0
        if expected is not None and expected != serving:
            raise RollBackRefused(f"expected_version must be {serving}, the one that serves, got {expected}")
        if self.previous is None:
            raise RollBackRefused(f"there is no generation before version {serving} to roll back to")
        return self.previous

    def roll_back(self, state: State) -> Generation | None:
        """Makes the previous generation live again.

        Returns:
            The one that served, which is dropped: called twice, this must not bring it back. Its index is to be closed.
        """
        assert self.previous is not None
        self.previous.catch_up(state, len(self.previous.missed))
        dropped, self.serving, self.previous = self.serving, self.previous.generation, None
        self.versions.append(self.serving.version)
        return dropped

    def withdraw(self) -> list[Generation]:
        """Has none serve any more.

        Returns:
            All that there were: their indexes are to be closed.
        """
        dropped = [self.serving, self.previous.generation if self.previous else None]
        self.serving = self.previous = None
        return [generation for generation in dropped if generation is not None]

    def close(self) -> None:
        """Ends what their indexes run aside."""
        for generation in (self.serving, self.previous.generation if self.previous else None):
            if generation is not None:
                generation.index.close()
