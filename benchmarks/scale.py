"""What the state costs as it grows: time per event, and memory per user and item.

    python -m benchmarks.scale [--quick]

Only `State.fold` is timed, without Kafka: batches of 4,096 decoded events over 4 partitions (an event's partition goes
by its user), in one thread, whose processor time counts: nothing else on the machine adds to that. Two states are
filled alike, one of 18,000 users and 2,000 items, one of 100 times as many; each has limits that just hold them, and a
window of event ids that is full in both. Users come first, with one event each on the same few items; then every item
gets users and a next item in every partition. Then the two take turns of 10 batches: users drawn evenly, items by
Zipf's law, all of them known and in a session already. The small state is made anew before each of its turns, so that
in both a user has 2 to 4 events on average, whatever the number of turns.

    cost_ratio      median time of a batch at 2,000,000 nodes over that at 20,000
    bytes_per_user  growth of the resident memory while the users came, per user: one event each, room for 8
    growth_ms_max   longest fold of 4,096 events, each of a new user, while the large state's users came
    bytes_per_item  the same for the items, each of them known in all 4 partitions with up to 8 users and next items
    peak_gb         most that was resident in a process that folds 20,000,000 events by 1,000,000 users on 200,000 items
                    with the default settings; fold_s is the time in `State.fold` meanwhile. Not with --quick
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gc
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import report
from engine import collector
from engine.config import Config, StateConfig
from engine.events.batch import Decoded, EventBatch
from engine.state.state import State

PARTITIONS = 4
BATCH = 4096
TURN = 10  # batches
SMALL, LARGE = (18_000, 2_000), (1_800_000, 200_000)  # users, items
PEAK_EVENTS, PEAK_USERS, PEAK_ITEMS = 20_000_000, 1_000_000, 200_000
PROGRESS = 1_000_000  # events between two lines
_FILL_BATCH = 32_768
_QUICK_S = 40.0  # from the start; then no further turn begins
_WINDOW = 8192  # event ids per partition: the smaller fill has more
_FIRST_ITEMS = 1_000  # those that the users' first events are on
_TOPIC = Config().kafka.events_topic

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Growth:
    """Resident memory that the users and the items of a state have taken, and the times of the users' batches."""

    users_bytes: int
    items_bytes: int
    batches_s: list[float]


class World:
    """A state, and the log that it folds.

    Args:
        config: of the state; default: the engine's.
    """

    def __init__(self, users: int, items: int, config: StateConfig | None = None) -> None:
        self.users, self.items = users, items
        self.state = State(config or StateConfig(), Config().events, events_topic=_TOPIC, partitions=PARTITIONS)
        self._draw = np.random.default_rng(1)
        self._reach = np.cumsum(1 / np.arange(1, items + 1))  # Zipf's law, exponent 1
        self._offset = 0

    def fill(self) -> Growth:
        """Has every user seen, then every item in every partition, twice: the second time after another."""
        before = _resident_bytes()
        everyone = np.arange(self.users)
        batches_s = self._fold_all(everyone, everyone // PARTITIONS % min(_FIRST_ITEMS, self.items), BATCH)
        between = _resident_bytes()
        some = everyone[: self.items * PARTITIONS]
        self._fold_all(some, some // PARTITIONS)
        self._fold_all(some, (some // PARTITIONS + 1) % self.items)
        return Growth(between - before, _resident_bytes() - between, batches_s)

    def batches(self, count: int) -> list[Decoded]:
        """By users drawn evenly, on items drawn by Zipf's law."""
        return [self.batch(BATCH) for _ in range(count)]

    def batch(self, size: int, active: int | None = None) -> Decoded:
        """One batch; `active`: by the first so many users alone."""
        item = np.searchsorted(self._reach, self._draw.random(size) * self._reach[-1])
        return self._decoded(self._draw.integers(0, active or self.users, size), np.minimum(item, self.items - 1))

    def _fold_all(self, users: Rows, items: Rows, size: int = _FILL_BATCH) -> list[float]:
        """In batches of `size`; returns the processor time of each."""
        times_s = []
        for first in range(0, len(users), size):
            part = slice(first, first + size)
            times_s.append(_fold_s(self.state, self._decoded(users[part], items[part])))
        return times_s

    def _decoded(self, user: Rows, item: Rows) -> Decoded:
        """The batch as the decoder hands it over: every id a string of its own."""
        count = len(user)
        names = self._draw.bytes(16 * count).hex()
        offset = np.arange(self._offset, self._offset + count)
        self._offset += count
        time_ms = 1_700_000_000_000 + offset
        events = EventBatch(
            event_id=[names[at : at + 32] for at in range(0, 32 * count, 32)],
            user_id=[f"user-{number}" for number in user.tolist()],
            session_id=[f"session-{number}" for number in user.tolist()],
            item_id=[f"item-{number}" for number in item.tolist()],
            target_id=[""] * count,
            kind=self._draw.integers(0, 4, count).astype(np.int8),
            time_ms=time_ms,
            value=np.ones(count, np.float32),
            partition=(user % PARTITIONS).astype(np.int32),
            offset=offset,
            timestamp_ms=time_ms,
            forget=np.zeros(count, np.bool_),
            ends=np.zeros(count, np.bool_),
        )
        positions = {(_TOPIC, partition): self._offset for partition in range(PARTITIONS)}
        return Decoded(events, [], [], positions)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within 50 s: without peak_gb")
    quick = parser.parse_args().quick
    begun_s = time.perf_counter()
    torch.set_num_threads(1)
    collector.set_aside()  # as in the engine
    figures: dict[str, float | int | str] = {}
    rows = []
    users, items = LARGE
    print(f"filling: {users:,} users and {items:,} items", flush=True)
    large = World(*LARGE, _just_enough(*LARGE))
    growth = large.fill()
    print(f"folding: turns of {TURN} batches each", flush=True)
    small_s, large_s = _turns(large, 8 if quick else 40, begun_s + (_QUICK_S if quick else float("inf")))
    figures |= {
        "cost_ratio": round(median(large_s) / median(small_s), 3),
        "small_us_per_event": round(1e6 * median(small_s) / BATCH, 2),
        "large_us_per_event": round(1e6 * median(large_s) / BATCH, 2),
        "batches": len(large_s),
        "growth_ms_p50": round(1e3 * median(growth.batches_s), 1),
        "growth_ms_max": round(1e3 * max(growth.batches_s), 1),
        "bytes_per_user": round(growth.users_bytes / users),
        "bytes_per_item": round(growth.items_bytes / items),
        "small_nodes": sum(SMALL),
        "large_nodes": sum(LARGE),
    }
    rows += [
        (f"cost per event at {sum(LARGE):,} nodes over that at {sum(SMALL):,}", f"{figures['cost_ratio']}"),
        (f"cost per event at {sum(SMALL):,} nodes", f"{figures['small_us_per_event']} us"),
        (f"cost per event at {sum(LARGE):,} nodes", f"{figures['large_us_per_event']} us"),
        (
            f"fold of {BATCH:,} new users while {users:,} come, median and longest",
            f"{figures['growth_ms_p50']} ms, {figures['growth_ms_max']} ms",
        ),
        ("memory per user with up to 8 events", f"{figures['bytes_per_user']} bytes"),
        (f"memory per item that all {PARTITIONS} partitions know", f"{figures['bytes_per_item']} bytes"),
    ]
    if not quick:
        del large
        # A process of its own, begun anew: what this one has had resident says nothing there.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peak_bytes, fold_s = pool.submit(_peak, PEAK_EVENTS).result()
        figures |= {"peak_gb": round(peak_bytes / 1e9, 2), "fold_s": round(fold_s, 1), "peak_events": PEAK_EVENTS}
        rows += [
            (
                f"most memory: {PEAK_EVENTS:,} events, {PEAK_USERS:,} users, {PEAK_ITEMS:,} items",
                f"{figures['peak_gb']} GB",
            ),
            ("processor time to fold them", f"{figures['fold_s']} s"),
        ]
    report("scale", "The state as it grows", rows, figures)


def _just_enough(users: int, items: int) -> StateConfig:
    return StateConfig(max_users=users, max_items=items, duplicates_window=_WINDOW)


def _turns(large: World, turns: int, end_s: float) -> tuple[list[float], list[float]]:
    """Times of the batches in the small and in the large state; at least two turns, and none begins after `end_s`."""
    small_s: list[float] = []
    large_s: list[float] = []
    for turn in range(turns):
        if turn >= 2 and time.perf_counter() > end_s:
            break
        small = World(*SMALL, _just_enough(*SMALL))
        small.fill()
        for world, times_s in ((small, small_s), (large, large_s)):
            times_s += [_fold_s(world.state, decoded) for decoded in world.batches(TURN)]
    return small_s, large_s


def _fold_s(state: State, decoded: Decoded) -> float:
    """Processor time of one fold."""
    start_s = time.thread_time()
    state.fold(decoded)
    return time.thread_time() - start_s


def _peak(events: int) -> tuple[int, float]:
    """Most memory resident, and the processor time of folding so many events with the default settings."""
    torch.set_num_threads(1)
    collector.set_aside()
    world, fold_s = World(PEAK_USERS, PEAK_ITEMS), 0.0
    for first in range(0, events, BATCH):
        decoded = world.batch(min(BATCH, events - first))
        fold_s += _fold_s(world.state, decoded)
        done = first + len(decoded.events)
        if done // PROGRESS > first // PROGRESS:
            print(f"folded {done:,} of {events:,} events, {_resident_bytes() / 1e9:.2f} GB", flush=True)
    if world.state.events_folded != events:
        sys.exit(f"{world.state.events_folded} of {events} events were folded")
    return _status_bytes("VmHWM"), fold_s


def _resident_bytes() -> int:
    gc.collect()
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    """What Linux says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
