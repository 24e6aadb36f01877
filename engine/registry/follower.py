"""The thread that has this engine serve what the registry says: after a start before calls are sent here, then always.

It fetches and builds the newest model that is named, one at a time and for as long as that takes. Where the registry
is away or has a damaged file, a start waits for `registry.wait_s` and then takes the engine's own copy of the last
model, or none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import replace
from typing import Any, Protocol

from engine import metrics
from engine.errands import begun, in_background
from engine.generation import Build
from engine.index.hnsw import BuildStoppedError
from engine.log_fields import of_model
from engine.model.weights import WeightsError
from engine.readiness import ModelGate
from engine.registry.errors import RegistryError
from engine.registry.ledger import Ledger, ListedModel, ModelState
from engine.registry.local_copy import LocalCopy
from engine.registry.registry import ModelRegistry
from engine.registry.standing import Building, RefusedHere, Source, Standing
from engine.registry.stored import StoredModel

_log = logging.getLogger(__name__)

_LOOK_S = 0.2  # between two looks while something is waited for
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 1.0, 60.0
_CLOSE_S = 10.0


class Swapper(Protocol):
    """What the follower needs of the installer. A future can't be cancelled."""

    @property
    def serving(self) -> int: ...

    @property
    def at_rest(self) -> int: ...

    def install(self, data: Any, version: int, model_metrics: Any, build: Build, /) -> Future[None]: ...

    def roll_back(self, expected: int | None, /) -> Future[int]: ...

    def withdraw(self) -> Future[None]: ...

    def give_up(self) -> None: ...


class ModelFollower:
    """Runs from `start` to `stop`.

    Args:
        gate: tells when models may be built, and hears when a start waits for none any more.
        wait_s: how long a start waits for the registry.
    """

    def __init__(
        self, registry: ModelRegistry, swapper: Swapper, local: LocalCopy | None, gate: ModelGate, wait_s: float
    ) -> None:
        self._registry = registry
        self._reader = registry.reader
        self._swapper = swapper
        self._local = local
        self._gate = gate
        self._wait_s = wait_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._standing = Standing()
        self._refused: tuple[int, str] | None = None  # version and digest
        self._taken: StoredModel | None = None  # what this engine serves
        self._retry_at_s, self._backoff_s = 0.0, _FIRST_BACKOFF_S
        self._began_s = 0.0
        for outcome in ("served", "refused", "failed"):
            metrics.MODEL_BUILDS.labels(outcome)  # or Prometheus would not see that the first one has raised it

    def start(self) -> None:
        self._reader.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends the threads; a build that is under way is ended by whoever runs the engine's thread."""
        self._stop.set()
        self._reader.stop()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def standing(self) -> Standing:
        """How far this engine is. For any thread."""
        standing = self._standing
        building = standing.building
        if building is not None:
            standing = replace(standing, building=replace(building, seconds=time.monotonic() - building.began_s))
        return replace(standing, problem=standing.problem or self._reader.problem)

    # -- its thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._gate.caught_up.wait(_LOOK_S):
            if self._stop.is_set():
                return
        self._began_s = time.monotonic()
        while not self._stop.is_set():
            try:
                self._look()
            except Exception as error:
                if self._stop.is_set():
                    return
                # It must go on, whatever a model or the machine does.
                _log.exception("the thread that follows the registry of models has failed")
                self._put_off(f"the model that is to serve could not be made ready: {error!r}")
            metrics.REGISTRY_PROBLEM.set(bool(self.standing().problem))
            self._reader.wait(self._is_wanted, _LOOK_S if self._is_starting else 1.0)

    @property
    def _is_starting(self) -> bool:
        return not self._gate.settled.is_set()

    def _is_wanted(self) -> bool:
        """Whether there is anything to be done now."""
        ledger = self._reader.ledger
        return ledger is not None and time.monotonic() >= self._retry_at_s and self._wanted(ledger) is not None

    def _wanted(self, ledger: Ledger) -> ListedModel | None:
        """The model that is to serve, where it neither serves nor is refused."""
        listed = ledger.serving
        if listed is None:
            return None
        served = self._taken is not None and self._swapper.serving == listed.model.version
        refused = self._refused == (listed.model.version, listed.model.sha256)
        return None if served or refused else listed

    def _look(self) -> None:
        """Does what is to be done now.

        1. The registry does not answer: a start goes on without it in the end.
        2. The model that serves was withdrawn and there is none to follow it: none serves.
        3. Another model is to serve: it is brought.
        """
        ledger = self._reader.ledger
        # Step 1.
        if ledger is None:
            self._go_on_without(ledger)
            return
        # Step 2.
        if ledger.serving is None and self._taken is not None and self._is_gone(ledger, self._taken):
            self._wait_for(self._swapper.withdraw(), None)
            self._taken = None
            self._stand(source=Source.NONE)
        # Step 3.
        listed = self._wanted(ledger)
        if listed is None:
            self._settle(ledger)
        elif time.monotonic() >= self._retry_at_s:
            self._bring(listed, ledger)
        else:
            self._go_on_without(ledger)

    def _settle(self, ledger: Ledger) -> None:
        """Nothing is to be done: a start need not wait for more."""
        listed = ledger.serving
        if listed is not None and self._swapper.serving != listed.model.version and self._is_starting:
            self._serve_local_copy(ledger)  # What is to serve was refused.
        if listed is not None and self._swapper.serving == listed.model.version:
            self._stand(source=Source.REGISTRY)
        self._stand(problem="")
        self._gate.settled.set()

    def _go_on_without(self, ledger: Ledger | None) -> None:
        """Once a start has waited long enough, it serves its own copy, or no model."""
        if not self._is_starting or time.monotonic() - self._began_s < self._wait_s:
            return
        problem = self.standing().problem or "the models' topic is not read to its end yet"
        _log.error(
            "the model that is to serve could not be had within %g s (registry.wait_s), so this engine goes on without"
            " the registry: %s", self._wait_s, problem,
        )  # fmt: skip
        self._serve_local_copy(ledger)
        self._gate.settled.set()

    def _serve_local_copy(self, ledger: Ledger | None) -> None:
        model = self._local.model() if self._local is not None else None
        if self._swapper.serving or self._local is None or model is None:
            return
        listed = ledger.find(model.version) if ledger is not None else None
        if self._refused == (model.version, model.sha256) or (ledger is not None and self._is_gone(ledger, model)):
            _log.warning(
                "the local copy of model version %d is not served: it was taken back",
                model.version,
                extra=of_model(model.version),
            )
            return
        try:
            data = self._local.load(model)
            self._install(model, data, again=True, unwanted=lambda: False)
        except (RegistryError, WeightsError) as error:
            _log.error(
                "the local copy of model version %d can't serve: %s",
                model.version,
                error,
                extra=of_model(model.version),
            )
            self._stand(building=None)
            return
        self._taken = model
        source = Source.REGISTRY if listed is not None and listed.state is ModelState.SERVING else Source.LOCAL_COPY
        self._stand(source=source, building=None)

    def _is_gone(self, ledger: Ledger, model: StoredModel) -> bool:
        listed = ledger.find(model.version)
        return listed is not None and listed.state in (ModelState.WITHDRAWN, ModelState.ROLLED_BACK)

    def _bring(self, listed: ListedModel, ledger: Ledger) -> None:
        """Has a model serve; on any failure what serves goes on."""
        model, began_s = listed.model, time.monotonic()
        try:
            if self._swapper.at_rest == model.version and self._swapper.serving:
                self._wait_for(self._swapper.roll_back(self._swapper.serving), None)
                data = None
            else:
                data = self._fetched(model)
                again = self._is_known(listed, ledger)
                self._install(model, data, again=again, unwanted=lambda: not self._is_still_wanted(model))
        except BuildStoppedError:
            self._stand(building=None)
            return
        except WeightsError as error:
            self._refuse(model, str(error))
            return
        except RegistryError as error:
            self._put_off(str(error))
            return
        self._taken, self._refused, self._backoff_s = model, None, _FIRST_BACKOFF_S
        metrics.MODEL_BUILDS.labels("served").inc()
        metrics.SWAP_SECONDS.observe(time.monotonic() - began_s)
        metrics.MODEL_REFUSED.set(0)
        self._stand(source=Source.REGISTRY, building=None, refused=None, problem="")
        self._reader.notify()
        self._keep_copy(model, data)

    def _keep_copy(self, model: StoredModel, data: bytearray | None) -> None:
        """Keeps what serves, for a start without the registry; without its weights at hand, they are fetched."""
        if self._local is None:
            return
        try:
            self._local.keep(model, self._fetched(model) if data is None else data)
        except RegistryError as error:
            self._local.drop()  # A model that was taken back must not come back.
            _log.warning(
                "no local copy of model version %d is kept: %s", model.version, error, extra=of_model(model.version)
            )

    def _is_known(self, listed: ListedModel, ledger: Ledger) -> bool:
        """Whether a model was tried before, or chosen by somebody, so that no canary compares it with others."""
        kept = self._local.model() if self._local is not None else None
        chosen = ledger.pinned == listed.model.version or listed.model.version < self._swapper.serving
        return chosen or (kept is not None and kept.sha256 == listed.model.sha256)

    def _is_still_wanted(self, model: StoredModel) -> bool:
        """A build is ended where its model was taken back, and not by a newer one: else none would ever end."""
        ledger = self._reader.ledger
        return ledger is None or not self._is_gone(ledger, model)

    def _fetched(self, model: StoredModel) -> bytearray:
        """The weights of a model, from the engine's own copy where that is the same.

        Raises:
            RegistryError: they can't be had, or a start has waited long enough.
        """
        if self._local is not None:
            kept = self._local.model()
            if kept is not None and (kept.version, kept.sha256) == (model.version, model.sha256):
                try:
                    return self._local.load(kept)
                except RegistryError as error:
                    _log.warning("the registry is asked for a model, because %s", error)
        answer: Future[bytearray] = begun()
        # In a thread of its own, since a store that is away may not answer for minutes.
        in_background("model-fetch", lambda: self._registry.load(model), answer)
        while True:
            try:
                return answer.result(_LOOK_S)
            except NotDone:
                if answer.done():
                    raise
                if self._stop.is_set():
                    raise BuildStoppedError("the engine is stopping") from None
                if self._is_starting and time.monotonic() - self._began_s >= self._wait_s:
                    raise RegistryError(
                        f"registry.dir {self._registry.dir} has not given model version {model.version} within"
                        f" {self._wait_s:g} s (registry.wait_s)"
                    ) from None

    def _install(self, model: StoredModel, data: bytearray, *, again: bool, unwanted: Callable[[], bool]) -> None:
        before = ", before calls are sent here" if self._is_starting else ""
        _log.info("building model version %d%s", model.version, before, extra=of_model(model.version))
        building = Building(model.version, 0.0, time.monotonic())
        self._stand(building=building)

        def progress(done: float) -> None:
            metrics.MODEL_BUILD_PROGRESS.set(done)
            self._stand(building=replace(building, progress=done))

        build = Build(
            again=again,
            named=True,
            made_s=model.accepted_ms / 1000,
            hurried=self._is_starting,
            progress=progress,
        )
        try:
            self._wait_for(self._swapper.install(data, model.version, model.metrics, build), unwanted)
        finally:
            metrics.MODEL_BUILD_PROGRESS.set(1)

    def _wait_for(self, done: Future[Any], unwanted: Callable[[], bool] | None) -> None:
        while True:
            try:
                done.result(_LOOK_S)
                return
            except NotDone:
                if done.done():
                    raise
                if self._stop.is_set():
                    raise BuildStoppedError("the engine is stopping") from None
                if unwanted is not None and unwanted():
                    self._swapper.give_up()

    def _refuse(self, model: StoredModel, reason: str) -> None:
        """The model does not serve here. Where this engine took it, it is to serve nowhere."""
        said = "model version %d is refused, and what served goes on: %s"
        _log.error(said, model.version, reason, extra=of_model(model.version))
        metrics.MODEL_BUILDS.labels("refused").inc()
        metrics.MODEL_REFUSED.set(1)
        self._refused = model.version, model.sha256
        self._stand(building=None, refused=RefusedHere(model.version, reason, time.time()))
        if model.engine == self._registry.engine:
            try:
                self._registry.withdraw(model.version, reason)
            except RegistryError as error:
                _log.error(
                    "model version %d is refused here and could not be withdrawn: %s",
                    model.version,
                    error,
                    extra=of_model(model.version),
                )

    def _put_off(self, problem: str) -> None:
        """Another try comes later."""
        metrics.MODEL_BUILDS.labels("failed").inc()
        self._retry_at_s = time.monotonic() + self._backoff_s
        if problem != self._standing.problem:
            _log.error("%s; it is tried again and again", problem)
        self._backoff_s = min(2 * self._backoff_s, _LAST_BACKOFF_S)
        self._stand(building=None, problem=problem)

    def _stand(self, **changed: Any) -> None:
        self._standing = replace(self._standing, **changed)
