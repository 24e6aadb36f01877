"""An engine and the trainer that pushes to it, each a process of its own, as several benchmarks have them."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import ousel

from benchmarks.recovery_engine import EngineError, KillableEngine, environment
from deploy.local.processes import Child
from engine.config import Config

_LOOK_S = 0.5
_STATUS_S = 60.0


class EngineAndTrainer:
    """Both are started by `start`; the engine listens then, and nothing else is waited for."""

    def __init__(self, engine: KillableEngine, trainer: Child) -> None:
        self.engine = engine
        self.trainer = trainer
        self._address = engine.address
        self._trains = True

    @classmethod
    def start(cls, config: Config, folder: Path, name: str, variables: dict[str, str] | None = None) -> Self:
        """Args:
        name: of this pair, for the names of its logs in `folder`.
        variables: the environment of both; where it is not given, what `config` says.
        """
        variables = variables or environment(config)
        engine = KillableEngine(config, folder / f"{name}-engine.log", variables)
        engine.wait_until("to listen", lambda: "metrics on" in engine.log())
        of_trainer = variables | {"OUSEL_TRAINER__ENGINE": engine.address, "PYTHONUNBUFFERED": "1"}
        trainer = Child("trainer", [sys.executable, "-m", "trainer", "run"], folder / f"{name}-trainer.log", of_trainer)
        return cls(engine, trainer)

    def folded(self) -> int:
        """Events that the engine has folded."""
        return self.status().events_folded

    def status(self) -> ousel.Status:
        with ousel.Client(self._address, timeout_s=_STATUS_S) as client:
            return client.status()

    def trainer_says(self, pattern: str) -> re.Match[str] | None:
        """The first place in the trainer's log that a regular expression matches."""
        return re.search(pattern, self.trainer.log_path.read_text(errors="replace"))

    def until(self, what: str, within_s: float, true: Callable[[], object]) -> None:
        """Waits for a condition.

        Raises:
            EngineError: it did not come in time, or one of the two processes ended.
        """
        deadline_s = time.monotonic() + within_s
        while not true():
            ended = self.engine.ended or (self._trains and self.trainer.wait(0) is not None)
            if ended or time.monotonic() > deadline_s:
                raise EngineError(f"waited until {what}:\n{self.engine.log()[-2000:]}\n{self.trainer.log_tail(20)}")
            time.sleep(_LOOK_S)

    def kill(self) -> None:
        """Ends both by SIGKILL."""
        self.engine.kill()
        os.kill(self.trainer.pid, signal.SIGKILL)
        self.trainer.wait()

    def stop_trainer(self) -> None:
        self._trains = False
        self.trainer.stop()

    def close(self) -> None:
        self.stop_trainer()
        self.engine.close()
