"""One trial after another of `benchmarks.recovery`: kill, start again, compare with the run that never stopped."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

import ousel

from benchmarks.recovery_engine import KillableEngine, Replay
from benchmarks.recovery_producers import StockWriters
from benchmarks.recovery_straight import Straight
from benchmarks.recovery_writer import Writer
from engine.config import Config
from engine.events.source import Partition

Kill = Literal["live", "snapshot", "replay"]
_ANSWER_S = 60.0
_CAUGHT_UP_S = 120.0


@dataclass
class Tally:
    """What the trials have shown.

    Attributes:
        differences: what was not as it must be, a line each.
        lost, twice: events, the most that any comparison has found.
        replays: of the restarts that ended SERVING.
        killed_while: kills of the engine by what it was at.
    """

    trials: int = 0
    identical: int = 0
    lost: int = 0
    twice: int = 0
    differences: list[str] = field(default_factory=list)
    restart_s: list[float] = field(default_factory=list)
    replays: list[Replay] = field(default_factory=list)
    killed_while: Counter[str] = field(default_factory=Counter)


class Trials:
    """An engine, a writer that never pauses, and the run that both are compared with. A context manager.

    Args:
        config: of all of them; its topics exist, and `snapshot.dir` is set.
        folder: gets the engine's logs.
        seed: decides when what is killed.
        stock: makes other people's producers, which write beside it; none unless given.
    """

    def __init__(
        self,
        config: Config,
        partitions: int,
        folder: Path,
        *,
        seed: int,
        events_per_s: int,
        stock: Callable[[], StockWriters] | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._chance = Random(seed)
        self._pause = threading.Event()
        self._starts = 0
        self.tally = Tally()
        with ExitStack() as opened:
            self._straight = opened.enter_context(closing(Straight(config, partitions)))
            self._writer = opened.enter_context(closing(Writer(config.kafka, seed, events_per_s)))
            self.stock = opened.enter_context(closing(stock())) if stock is not None else None
            self._engine = self._start()
            opened.callback(lambda: self._engine.close())
            self._engine.wait_until_serving()
            self._opened = opened.pop_all()

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def engine_trial(self, kill: Kill) -> None:
        """The engine is killed, at best while it is at `kill`, started again, and compared once it serves."""
        if kill == "snapshot":
            self._engine.wait_until_writing()
            self._wait(0.02)
        else:
            self._wait(1.5)
        self._kill()
        if kill == "replay":
            self._engine = self._start()
            self._engine.wait_until_replaying()
            self._wait(0.06)
            self._kill()
        self._restart_and_compare(f"killed at {kill}")

    def broker_trial(self, kill_broker: Callable[[], None], start_broker: Callable[[], None]) -> None:
        """The broker is killed and started again, in half of the trials with the engine."""
        self._wait(1.5)
        with_engine = self._chance.random() < 0.5
        kill_broker()
        before = self._writer.ends()
        if with_engine:
            self._kill()
        start_broker()
        self._until("the writer to go on", lambda: any(at > before.get(p, 0) for p, at in self._writer.ends().items()))
        if with_engine:
            self._restart_and_compare("killed with the broker")
        else:
            self._compare("lived on without the broker", self._writer.ends())

    def finish(self) -> None:
        """Ends the writer, and compares all that was ever acknowledged."""
        self._writer.finish(_CAUGHT_UP_S)
        if self.stock is not None:
            self.stock.close()
            self.tally.differences += self.stock.failures
        self._compare("at the end of the log", self._straight.ends(), counts=False)
        if self._straight.pending:
            self.tally.lost = max(self.tally.lost, self._straight.pending)
            self.tally.differences.append(f"{self._straight.pending} acknowledged events are not in the log")

    def _restart_and_compare(self, what: str) -> None:
        at_least = (
            self._straight.ends()
        )  # with what the writer has heard of, but for records behind an open transaction
        self._engine = self._start()
        self.tally.restart_s.append(self._engine.wait_until_serving())
        self.tally.replays.append(self._engine.replay())
        self._compare(what, at_least, at_once=True)

    def _compare(
        self, what: str, at_least: Mapping[Partition, int], *, at_once: bool = False, counts: bool = True
    ) -> None:
        """Compares the engine with the straight run, where the engine is.

        Args:
            at_least: positions that it must have come to; waited for, unless `at_once`.
            counts: whether this is a trial.
        """
        with ousel.Client(self._engine.address, timeout_s=_ANSWER_S) as client:
            if not at_once:
                events = {p: at for p, at in at_least.items() if p[0] == self._config.kafka.events_topic}
                self._until("the engine to catch up", lambda: not _behind(_events(client.status()), events))
            first, answer = self._ask(client)
        behind = _behind(_positions(first if at_once else answer), at_least)
        positions = _positions(answer)
        straight = self._straight.digest(positions)
        topic = self._config.kafka.events_topic
        found = [f"{p}: {by} acknowledged records were not folded when it served" for p, by in behind.items()]
        for one in answer.partitions:
            partition = one.reflects.partition
            if one.digest != straight.slices[partition]:
                found.append(
                    f"partition {partition} up to {positions[topic, partition]}: digest {one.digest}, "
                    f"straight {straight.slices[partition]}"
                )
        if {one.reflects.partition for one in answer.partitions} != set(straight.slices):
            found.append(f"partitions {[one.reflects.partition for one in answer.partitions]} are not all")
        if answer.catalog_digest != straight.catalog:
            found.append(f"catalog: digest {answer.catalog_digest}, straight {straight.catalog}")
        folded = {one.reflects.partition: one.events_folded for one in answer.partitions}
        missing = {at: due - folded.get(at, 0) for at, due in self._straight.due.items()}
        found += [f"partition {at}: {folded.get(at, 0)} folded, {by:+} are missing" for at, by in missing.items() if by]
        acknowledged = self._writer.take() + (self.stock.take() if self.stock is not None else [])
        not_in_log = self._straight.lost(acknowledged)
        if not_in_log:
            found.append(f"{not_in_log} acknowledged events are not where the broker said")
        late = sum(behind.values())
        tally = self.tally
        tally.lost = max(tally.lost, sum(max(0, by) for by in missing.values()) + not_in_log + late)
        tally.twice = max(tally.twice, sum(max(0, -by) for by in missing.values()))
        tally.differences += [f"trial {tally.trials}, {what}: {line}" for line in found]
        if counts:
            tally.trials += 1
            tally.identical += not found

    def _ask(self, client: ousel.Client) -> tuple[ousel.StateDigest, ousel.StateDigest]:
        """The digests now, and soon after, when they are exact."""
        # While changes come in, an answer's catalog may be newer than it says: exact if the next reflects the same.
        with self._writer.catalog_at_rest():
            first = answer = client.get_digest()
            while (after := client.get_digest()).catalog_reflects != answer.catalog_reflects:
                answer = after
            return first, answer

    def _start(self) -> KillableEngine:
        self._starts += 1
        return KillableEngine(self._config, self._folder / f"engine-{self._starts}.log")

    def _kill(self) -> None:
        self.tally.killed_while[self._engine.kill()] += 1

    def _wait(self, most_s: float) -> None:
        self._pause.wait(self._chance.uniform(0, most_s))

    def _until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _CAUGHT_UP_S
        while not true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {_CAUGHT_UP_S:g} s for {what}")
            self._pause.wait(0.1)


def _events(status: ousel.Status) -> dict[Partition, int]:
    """Next offset of each partition of the events topic."""
    return {(at.topic, at.partition): at.offset + 1 for at in status.reflects}


def _positions(answer: ousel.StateDigest) -> dict[Partition, int]:
    """Next offset of each (topic, partition)."""
    reflects = [*(one.reflects for one in answer.partitions), *answer.catalog_reflects]
    return {(at.topic, at.partition): at.offset + 1 for at in reflects}


def _behind(positions: Mapping[Partition, int], at_least: Mapping[Partition, int]) -> dict[Partition, int]:
    """By how many records each is short of what it must have come to."""
    missing = {partition: at - positions.get(partition, 0) for partition, at in at_least.items()}
    return {partition: by for partition, by in missing.items() if by > 0}
