"""Whether the engine should be sent calls: it has caught up with the log once, has its model, and the log answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from engine import metrics
from engine.events.source import LogHealth

_log = logging.getLogger(__name__)

_REACHED_S = 10.0  # A broker is asked all the time: one that has not answered for longer is not slow, it is away.


class ModelGate:
    """Between the engine's thread and the one that brings the model that is to serve after a start.

    Attributes:
        caught_up: set once the log is folded, so that a model can be built over the state.
        settled: set once nothing more is to be waited for: the model serves, or none will soon.
    """

    def __init__(self, settled: bool = False) -> None:
        self.caught_up = threading.Event()
        self.settled = threading.Event()
        if settled:
            self.settled.set()


class Readiness:
    """Follows the log's health, and tells when the engine becomes ready, stops being so, and is ready again.

    Lists are made all the while. An engine whose log is silent does not know how old they are: a load balancer should
    prefer one that does.

    Args:
        max_log_age_s: a log that has not answered for longer counts as silent.
        on_ready, on_unready: called in the engine's thread when it becomes ready, and when it ceases to be.
        models: an engine whose model is on its way is not ready, since its lists would be those of a scorer.

    Attributes:
        ready: as told last.
    """

    def __init__(
        self,
        max_log_age_s: float,
        on_ready: Callable[[], object],
        on_unready: Callable[[], object],
        models: ModelGate,
    ) -> None:
        self._max_log_age_s = max_log_age_s
        self._on_ready, self._on_unready = on_ready, on_unready
        self._models = models
        self._caught_up = False
        self._silent = False
        self.ready = False

    def catch_up(self) -> None:
        """All that the log held at the start is folded."""
        self._caught_up = True
        self._models.caught_up.set()
        self._settle()

    def observe(self, health: LogHealth) -> None:
        metrics.LOG_AGE.set(health.age_s)
        metrics.KAFKA_REACHABLE.set(health.age_s <= _REACHED_S)
        metrics.TOPIC_PROBLEMS.set(health.problems)
        silent = health.age_s > self._max_log_age_s
        if silent != self._silent:
            self._silent = silent
            self._say(health)
        self._settle()

    def _say(self, health: LogHealth) -> None:
        if self._silent:
            _log.warning(
                "the log has not answered for %.0f s: not ready until it does, lists are made from what is known;"
                " check the brokers, the network to them, and that the process that reads the log runs",
                health.age_s,
            )
        else:
            _log.warning("the log answers again")

    def _settle(self) -> None:
        ready = self._caught_up and not self._silent and self._models.settled.is_set()
        if ready != self.ready:
            self.ready = ready
            metrics.READY.set(ready)
            (self._on_ready if ready else self._on_unready)()
