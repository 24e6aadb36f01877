"""What serving needs of the engine. The pipeline is one; tests bring their own."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Protocol

from engine.pipeline import EngineStatus
from engine.ranking.query import Query, Ranking


class Engine(Protocol):
    """Answers from another thread. Every method returns at once and may be called from any thread."""

    def ask(self, query: Query) -> Future[Ranking]:
        """One list. Cancelling the future takes the call back.

        Raises:
            Overloaded: too many calls wait already.
        """

    def install(self, data: bytes, version: int, model_metrics: Mapping[str, float]) -> Future[None]:
        """Makes a pushed model serve. The future fails with WeightsError or StaleVersion; then the old one goes on."""

    def status(self) -> EngineStatus:
        """A look at the engine."""
