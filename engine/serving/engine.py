"""What serving needs of the engine. The pipeline is one; tests bring their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from engine.ranking.query import Position, Query, Ranking
from engine.state.digest import StateDigest
from engine.state.export import Subject
from engine.status import EngineStatus


class Engine(Protocol):
    """Answers from another thread. Every method returns at once and may be called from any thread."""

    def ask(self, query: Query, after: Position | None = None) -> Future[Ranking]:
        """One list, that reflects the record `after`. Cancelling the future takes the call back.

        The future fails with NotFollowing where this engine does not read that record's partition.

        Raises:
            Overloaded: too many calls wait already.
        """

    def ask_all(self, queries: Sequence[Query]) -> list[Future[Ranking]]:
        """Lists made together, all from one moment. Cancelling a future takes that query back.

        Raises:
            Overloaded: too many calls wait already.
        """

    def export(self, subject: str, /) -> Future[tuple[Subject, ...]]:
        """All that is held about a user or an anonymous session, by its `subject_key`, and its linked sessions.

        Cancelling the future takes the question back.
        """

    def digest(self) -> Future[StateDigest]:
        """What the state is at one moment. The future can't be cancelled: the work goes on."""

    def snapshot(self) -> Future[Mapping[tuple[str, int], int]]:
        """Takes a snapshot; the next offset of each (topic, partition) in it, once it is safe.

        The future can't be cancelled: the work goes on.

        Raises:
            SnapshotsOff: there is no folder for snapshots.
        """

    def status(self) -> EngineStatus:
        """A look at the engine."""
