"""Makes a pushed model the serving one: checked, built aside from a copy of the state, then caught up and adopted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from engine.config import Config
from engine.generation import Frozen, FrozenCopy, Generation, build_generation, check_fits, goal_of
from engine.model.weights import decode_weights
from engine.state.state import Folded

_log = logging.getLogger(__name__)

R = TypeVar("R")
_PARTS = 256  # batches remembered one by one before they are joined


class StaleVersion(ValueError):
    """A pushed version is not greater than the one that serves."""


class Missed:
    """What was folded since a copy was begun; None where nothing is being built."""

    def __init__(self) -> None:
        self._parts: list[Folded] | None = None

    def begin(self) -> None:
        self._parts = []

    def add(self, folded: Folded) -> None:
        if self._parts is None:
            return
        self._parts.append(folded)
        if len(self._parts) >= _PARTS:
            self._parts = [Folded.joined(self._parts)]

    def end(self) -> Folded | None:
        """All of it as one, and no more from now on."""
        parts, self._parts = self._parts, None
        return Folded.joined(parts) if parts else None


class Installer:
    """Builds generations, one at a time, in threads of their own.

    Args:
        serving: version that serves, 0 before the first.
        freeze: begins a copy in the engine's thread and gives it once it is whole.
        in_engine_thread: runs a call there and waits for it.
        adopt: makes a generation live; runs in the engine's thread.
        give_up: forgets what was noted for a build that failed; runs in the engine's thread.
    """

    def __init__(
        self,
        config: Config,
        *,
        serving: Callable[[], int],
        freeze: Callable[[], Future[FrozenCopy]],
        in_engine_thread: Callable[[Callable[[], object]], object],
        adopt: Callable[[Generation], None],
        give_up: Callable[[], object],
    ) -> None:
        self._config = config
        self._serving = serving
        self._freeze = freeze
        self._in_engine_thread = in_engine_thread
        self._adopt = adopt
        self._give_up = give_up
        self._one = threading.Lock()
        self._newest: threading.Thread | None = None
        self.closing = threading.Event()

    def install(self, data: bytes, version: int, model_metrics: Mapping[str, float]) -> Future[None]:
        """Checks a model, builds its generation and makes it live; on any error the old one goes on.

        The future fails with WeightsError (the file does not fit) or StaleVersion.
        """
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # from here on it can't be taken back

        def work() -> None:
            try:
                with self._one:
                    self._install(data, version, model_metrics)
                done.set_result(None)
            except Exception as error:
                done.set_exception(error)

        self._newest = threading.Thread(target=work, name="install", daemon=True)
        self._newest.start()
        return done

    @property
    def running(self) -> bool:
        """Whether a build may still need the engine's thread."""
        return self._newest is not None and self._newest.is_alive()

    def join(self, timeout_s: float) -> None:
        if self._newest is not None:
            self._newest.join(timeout_s)

    def _install(self, data: bytes, version: int, model_metrics: Mapping[str, float]) -> None:
        serving = self._serving()
        if version <= serving:
            raise StaleVersion(f"version must be > {serving}, the one that serves, got {version}")
        weights = decode_weights(data)
        check_fits(weights, self._config)
        goal = self._config.ranking.goal
        if goal is not None and goal_of(weights, self._config) is None:
            _log.warning(
                "model version %d has no goals: its lists are for events of any kind, not for ranking.goal %s."
                " Train with trainer.by_kind", version, goal,
            )  # fmt: skip
        try:
            frozen: Frozen = self._freeze().result().frozen()
            stopped = self.closing.is_set
            generation = build_generation(weights, version, dict(model_metrics), frozen, self._config, stopped)
            self._in_engine_thread(lambda: self._adopt(generation))
        except BaseException:
            self._in_engine_thread(self._give_up)
            raise
