"""Whether the engine should be sent calls: it has caught up with the log once, and the log answers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine import metrics
from engine.events.source import LogHealth

_log = logging.getLogger(__name__)

_REACHED_S = 10.0  # A broker is asked all the time: one that has not answered for longer is not slow, it is away.


class Readiness:
    """Follows the log's health, and tells when the engine becomes ready, stops being so, and is ready again.

    Lists are made all the while. An engine whose log is silent does not know how old they are: a load balancer should
    prefer one that does.

    Args:
        max_log_age_s: a log that has not answered for longer counts as silent.
        changed: gets the new readiness; called in the engine's thread.

    Attributes:
        ready: as told last.
    """

    def __init__(self, max_log_age_s: float, changed: Callable[[bool], object]) -> None:
        self._max_log_age_s = max_log_age_s
        self._changed = changed
        self._caught_up = False
        self._silent = False
        self.ready = False

    def catch_up(self) -> None:
        """All that the log held at the start is folded."""
        self._caught_up = True
        self._settle()

    def observe(self, health: LogHealth) -> None:
        metrics.LOG_AGE.set(health.age_s)
        metrics.KAFKA_REACHABLE.set(health.age_s <= _REACHED_S)
        metrics.TOPIC_PROBLEMS.set(health.problems)
        silent = health.age_s > self._max_log_age_s
        if silent == self._silent:
            return
        self._silent = silent
        if silent:
            _log.warning(
                "the log has not answered for %.0f s: not ready until it does, lists are made from what is known;"
                " check the brokers, the network to them, and that the process that reads the log runs",
                health.age_s,
            )
        else:
            _log.warning("the log answers again")
        self._settle()

    def _settle(self) -> None:
        ready = self._caught_up and not self._silent
        if ready != self.ready:
            self.ready = ready
            metrics.READY.set(ready)
            self._changed(ready)
