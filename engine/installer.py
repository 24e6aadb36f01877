"""Makes a pushed model the serving one: checked, built aside from a copy of the state, caught up and adopted.

And takes it back: the generation before is kept, and serves again on request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol, TypeVar

from engine.canary import Trial, check_vectors
from engine.config import Config
from engine.contest import recent_users
from engine.errands import in_background
from engine.generation import Build, Frozen, FrozenCopy, Generation, build_generation, check_fits, goal_of
from engine.generations import Aside, Generations, Missed, StaleVersion
from engine.index.hnsw import BuildStoppedError
from engine.log_fields import of_model
from engine.model.weights import Weights, decode_weights
from engine.pace import Pace, step_back
from engine.state.state import State

_log = logging.getLogger(__name__)

R = TypeVar("R")
_CATCH_UP_ROWS = 128  # followed between two steps: a few ms of the engine's thread


class InEngineThread(Protocol):
    """Runs a call in the engine's thread, between two steps, and waits for it."""

    def __call__(self, errand: Callable[[], R], /) -> R: ...


_AS_PUSHED = Build()


class Installer:
    """Builds generations and rolls them back, one at a time, in threads of their own.

    Args:
        generations: touched in the engine's thread only.
        state: gives the state, in the engine's thread.
        freeze: begins a copy, and the note of what it misses, in the engine's thread; gives both once it is whole.
        announce: hears of the generation that has become live, or that none serves any more, in the engine's thread.
    """

    def __init__(
        self,
        config: Config,
        generations: Generations,
        *,
        state: Callable[[], State],
        freeze: Callable[[], Future[tuple[FrozenCopy, Missed]]],
        in_engine_thread: InEngineThread,
        announce: Callable[[Generation | None], object],
    ) -> None:
        self._config = config
        self._generations = generations
        self._state = state
        self._freeze = freeze
        self._in_engine_thread = in_engine_thread
        self._announce = announce
        self._one = threading.Lock()
        self._newest: threading.Thread | None = None
        self.closing = threading.Event()
        self._given_up = threading.Event()  # the build that is under way

    @property
    def serving(self) -> int:
        """The version that serves; 0 before the first. For any thread."""
        generation = self._generations.serving
        return generation.version if generation else 0

    @property
    def at_rest(self) -> int:
        """The version that a roll back has serve again at once; 0 where there is none. For any thread."""
        previous = self._generations.previous
        return previous.generation.version if previous else 0

    def install(
        self,
        data: bytes | bytearray,
        version: int,
        model_metrics: Mapping[str, float],
        build: Build = _AS_PUSHED,
    ) -> Future[None]:
        """Checks a model, builds its generation, tries it and makes it live; on any error the old one goes on.

        The future fails with WeightsError (the file does not fit, or the canary refuses it), StaleVersion, or
        BuildStoppedError after `give_up`.
        """
        return self._run("install", lambda: self._install(data, version, model_metrics, build))

    def give_up(self) -> None:
        """Ends the build that is under way, if one is: its model is not wanted any more."""
        self._given_up.set()

    def withdraw(self) -> Future[None]:
        """Has no model serve: lists come from the best scorer that counts."""
        return self._run("withdraw", self._withdraw)

    def roll_back(self, expected: int | None = None) -> Future[int]:
        """Makes the generation before the serving one live again and drops the serving one; gives its version.

        The future fails with RollBackRefused where there is none, or another version than `expected` serves.
        """
        return self._run("roll-back", lambda: self._roll_back(expected))

    @property
    def running(self) -> bool:
        """Whether a build may still need the engine's thread."""
        return self._newest is not None and self._newest.is_alive()

    def join(self, timeout_s: float) -> None:
        if self._newest is not None:
            self._newest.join(timeout_s)

    def _run(self, name: str, work: Callable[[], R]) -> Future[R]:
        done: Future[R] = Future()
        done.set_running_or_notify_cancel()  # from here on it can't be taken back

        def one_at_a_time() -> R:
            with self._one:
                return work()

        self._newest = in_background(name, one_at_a_time, done)
        return done

    def _install(self, data: bytes | bytearray, version: int, model_metrics: Mapping[str, float], build: Build) -> None:
        self._given_up.clear()
        newest = self._in_engine_thread(lambda: self._generations.newest)
        if version <= newest and not build.named:
            raise StaleVersion(f"version must be > {newest}, the newest that has served, got {version}")
        weights = decode_weights(data)
        check_fits(weights, self._config)
        self._say_what_lists_will_lack(weights, version)
        try:
            copy, missed = self._freeze().result()
            frozen: Frozen = copy.frozen()
            generation = self._build(weights, version, model_metrics, frozen, build)
            users = recent_users(frozen.users, frozen.graph, self._config.canary.users)
            check_vectors(generation, frozen, users)
            built = Aside(generation, missed)
            self._catch_up(built)
            if not build.again:
                serving = self._in_engine_thread(lambda: self._generations.serving)
                self._try(Trial(self._config, generation, users, serving))
                self._catch_up(built)
            if self._given_up.is_set():
                raise BuildStoppedError(f"model version {version} is not wanted any more")
            self._make_live(generation, lambda: self._generations.adopt(self._state(), built))
        except BaseException:
            self._in_engine_thread(self._generations.give_up)
            raise

    def _build(
        self, weights: Weights, version: int, model_metrics: Mapping[str, float], frozen: Frozen, build: Build
    ) -> Generation:
        step_back(self._config.model.build_nice)
        pace = Pace(1.0 if build.hurried else self._config.model.build_share, self.closing)

        def stopped() -> bool:
            return pace.stopped() or self._given_up.is_set()

        metrics = dict(model_metrics)
        built = build_generation(weights, version, metrics, frozen, self._config, stopped, build.progress)
        return built if build.made_s is None else replace(built, made_s=build.made_s)

    def _say_what_lists_will_lack(self, weights: Weights, version: int) -> None:
        goal = self._config.ranking.goal
        if goal is not None and goal_of(weights, self._config) is None:
            _log.warning(
                "model version %d has no goals: its lists are for events of any kind, not for ranking.goal %s."
                " Train with trainer.by_kind", version, goal, extra=of_model(version),
            )  # fmt: skip
        reach, history = weights.model.sequence.reach, self._config.state.history
        if self._config.inference.sessions and reach >= history:
            _log.warning(
                "model version %d looks at a session's latest %d events and state.history is %d: its sessions are"
                " computed anew for each list. Raise state.history above it", version, reach, history,
                extra=of_model(version),
            )  # fmt: skip

    def _roll_back(self, expected: int | None) -> int:
        previous = self._in_engine_thread(lambda: self._generations.check_roll_back(expected))
        self._catch_up(previous)
        self._make_live(previous.generation, lambda: self._generations.roll_back(self._state()))
        return previous.generation.version

    def _withdraw(self) -> None:
        def none_serves() -> list[Generation]:
            dropped = self._generations.withdraw()
            self._announce(None)
            return dropped

        for generation in self._in_engine_thread(none_serves):
            generation.index.close()

    def _catch_up(self, aside: Aside) -> None:
        """Follows what was missed, a little between two steps, so that no list waits long for it."""
        rows = self._in_engine_thread(lambda: len(aside.missed))
        while rows > _CATCH_UP_ROWS:
            left = rows
            for _ in range(rows // _CATCH_UP_ROWS):
                left = self._piece(lambda: aside.catch_up(self._state(), _CATCH_UP_ROWS))
            if left > rows // 2:
                return  # events come faster than they are followed: the swap takes the rest at once
            rows = left

    def _try(self, trial: Trial) -> None:
        """Has the new generation and what it is compared with make lists, a few between two steps."""
        while not self._piece(lambda: trial.step(self._state())):
            pass
        trial.check()

    def _piece(self, work: Callable[[], R]) -> R:
        """Runs a little work between two steps, then leaves the engine's thread to lists, as `build_share` has it."""

        def timed() -> tuple[R, float]:
            begun_s = time.perf_counter()
            return work(), time.perf_counter() - begun_s

        result, took_s = self._in_engine_thread(timed)
        self.closing.wait(took_s * (1 / self._config.model.build_share - 1))
        return result

    def _make_live(self, generation: Generation, swap: Callable[[], Generation | None]) -> None:
        def live() -> Generation | None:
            dropped = swap()
            self._announce(generation)
            return dropped

        dropped = self._in_engine_thread(live)
        if dropped is not None:
            dropped.index.close()  # here, because it may wait for a build
