"""The demo from start to end: processes, catalog, history, a first model, the live part, the summary."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ousel import AsyncClient, OuselError, Status
from ousel.channel import DEFAULT_ADDRESS
from rich.console import Console

from deploy.demo.data import data_folder, events, read_items, read_purchases
from deploy.demo.live import LiveOptions, LivePart
from deploy.demo.popularity import DecayedPopularity
from deploy.demo.progress import Phase, Phases
from deploy.demo.replay import first_households
from deploy.demo.services import Services
from deploy.demo.summary import print_table, write_json
from deploy.demo.supervise import supervise
from deploy.demo.view import LiveView, PlainView
from deploy.demo.writer import LogWriter

_HISTORY_LINGER_MS = 20
_CHUNK = 1000  # records between two looks at the signals
_CHECK_S = 0.5
_CATCH_UP_S = 300.0
_TRAINING_SLACK_S = 600.0  # for a busy machine
_TRAINED_OUT = "more training on this log brings nothing"  # the trainer's own words
_TOUR_S = 20.0  # after the summary, for a reader who wants to roll back to the first model


class DemoError(RuntimeError):
    """The demo can't go on; the message says why and what to look at."""


@dataclass(frozen=True)
class Options:
    """The command line; see `python -m deploy.demo --help`."""

    live: LiveOptions
    weeks: int
    followed: int
    data_dir: Path
    report: Path
    train_minutes: float
    retrain_events: int
    live_view: bool


async def run(options: Options, console: Console) -> int:
    """Runs the demo and returns its exit code. Ctrl-C, SIGTERM and SIGHUP end it in order.

    Raises:
        DemoError, DataError, BrokerError, ServiceDied, WriteError: it failed; everything is stopped by then.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(signum, stop.set)
    services = Services(options.data_dir, options.train_minutes, options.retrain_events)
    try:
        async with AsyncExitStack() as cleanup:
            demo = _Demo(options, services, console, cleanup)
            if not await supervise(demo.set_up(), stop, services.watch()):
                console.print("stopped before the live part")
                return 0
            return await demo.live_part(stop)
    finally:
        services.stop()


class _Demo:
    def __init__(self, options: Options, services: Services, console: Console, cleanup: AsyncExitStack) -> None:
        self._options = options
        self._services = services
        self._console = console
        self._cleanup = cleanup
        self._phases = Phases(console, options.live_view)
        self._live: LivePart | None = None
        self._trained_out = False

    async def set_up(self) -> None:
        """Everything until the first model serves and every followed household has its list."""
        options, services, phases = self._options, self._services, self._phases
        # Step 1. The log, and the engine on it.
        with phases.phase("start", "starting broker and engine"):
            services.start_log()
            services.start_engine()
        self._console.print(f"  gRPC on {services.address}, metrics on 127.0.0.1:{services.metrics_port}", markup=False)
        client = await self._cleanup.enter_async_context(AsyncClient(services.address))
        # Step 2. The year.
        with phases.phase("read", "reading the purchases") as phase:
            folder = data_folder()
            items = read_items(folder)
            await asyncio.sleep(0)
            history, live = read_purchases(folder, options.weeks)
            phase.update(f"{len(items):,} products, {len(history):,} purchases until week {options.weeks}")
        # Step 3. Catalog and history into the log; engine and trainer fold them as they come.
        services.start_trainer(len(history))
        kafka = services.kafka
        writer = LogWriter(kafka, _HISTORY_LINGER_MS)
        self._cleanup.callback(writer.close)
        with phases.phase("catalog", "loading the catalog") as phase:
            records = ((item.item_id, item.SerializeToString()) for item in items)
            await _load(writer, kafka.items_topic, records, len(items), phase)
        popularity = DecayedPopularity()
        with phases.phase("history", "loading the history") as phase:
            for product, time_ms in zip(history.product.tolist(), history.time_ms.tolist(), strict=True):
                popularity.add(str(product), time_ms)
            records = ((event.user_id, event.SerializeToString()) for event in events(history))
            await _load(writer, kafka.events_topic, records, len(history), phase)
        # Step 4. A first model, trained once engine and trainer have caught up.
        with phases.phase("catch_up", "engine catching up") as phase:
            await self._wait_for(
                client,
                lambda status: status.events_folded >= len(history) and status.items_folded >= len(items),
                lambda status: phase.update("", status.events_folded if status else 0, len(history)),
                _CATCH_UP_S,
                "the engine has not folded the history",
            )
        with phases.phase("train", "training a first model") as phase:
            await self._wait_for(
                client,
                lambda status: bool(status.model_versions),
                lambda status: self._show_training(phase, status),
                options.train_minutes * 60 + _TRAINING_SLACK_S,
                "no model was pushed",
            )
            phase.update("model version 1 serves")
        # Step 5. A stream for every followed household.
        households = first_households(live, options.followed)
        user_ids = list(dict.fromkeys([*([options.live.household] if options.live.household else []),
                                       *map(str, households)]))  # fmt: skip
        live_writer = LogWriter(kafka, linger_ms=0)
        self._cleanup.callback(live_writer.close)
        titles = {item.item_id: item.title for item in items}
        self._live = LivePart(
            client, live_writer, kafka.events_topic, live, len(history), popularity, titles, user_ids, options.live
        )
        self._cleanup.push_async_callback(self._live.close)
        with phases.phase("subscribe", f"opening {len(user_ids)} streams"):
            await self._live.subscribe()
        self._say_commands(self._live.spotlight.household, popularity.top(1)[0], int(live.time_ms[0]))

    async def live_part(self, stop: asyncio.Event) -> int:
        """Replays, settles, reports. Returns the exit code."""
        live, services = self._live, self._services
        assert live is not None
        done = False
        with LiveView(self._console) if self._options.live_view else PlainView(self._console) as view:
            show = live.show(view, lambda: services.last_line("trainer"))
            done = await supervise(live.replay(), stop, services.watch(), live.keep_status(), show)
            if not done:
                # Whoever asks again gets the summary at once.
                stop.clear()
        self._console.print("waiting until the engine has folded all that was sent")
        await supervise(live.settle(), stop, services.watch())
        result = live.result(self._phases.seconds)
        write_json(result, self._options.report)
        print_table(result, self._console)
        self._console.print(f"written to {self._options.report}", markup=False)
        if len(result.model_versions) < 2:
            self._console.print(
                f"no second model was pushed while it ran; the trainer says: {services.last_line('trainer')}",
                markup=False,
                soft_wrap=True,
            )
        for problem in result.problems:
            self._console.print(f"[bold red]problem:[/] {problem}")
        if done and len(result.model_versions) > 1 and not result.problems:
            self._console.print(
                f"the engine serves for {_TOUR_S:g} s more: `ousel rollback` has model version"
                f" {result.model_versions[0]} serve again; Ctrl-C ends it now",
                markup=False,
                soft_wrap=True,
            )
            await supervise(asyncio.sleep(_TOUR_S), stop, services.watch())
        return 1 if result.problems else 0

    def _show_training(self, phase: Phase, status: Status | None) -> None:
        line = self._services.last_line("trainer")
        phase.update(line)
        # It was over before the status was asked for, and it would go on only after events that never come.
        if self._trained_out and status is not None and not status.model_versions and status.building is None:
            log = ", ".join(map(str, self._services.log_paths()))
            raise DemoError(f"no model was better than the scorers that count; try more --train-minutes, see {log}")
        self._trained_out = line.startswith(_TRAINED_OUT)

    async def _wait_for(
        self,
        client: AsyncClient,
        reached: Callable[[Status], bool],
        show: Callable[[Status | None], None],
        timeout_s: float,
        failure: str,
    ) -> None:
        deadline = time.monotonic() + timeout_s
        status: Status | None = None
        while time.monotonic() < deadline:
            try:
                status = await client.status()
            except OuselError:
                pass  # it is still starting; should it have died, its guard says so
            show(status)
            if status and reached(status):
                return
            await asyncio.sleep(_CHECK_S)
        logs = ", ".join(map(str, self._services.log_paths()))
        raise DemoError(f"{failure} within {timeout_s:.0f} s; see {logs}")

    def _say_commands(self, household: str | None, item_id: str, time_ms: int) -> None:
        """The README's tour, with a household that buys now, and the time that the log is at."""
        services = self._services
        program = shlex.quote(_shown(Path(sys.executable).with_name("ousel")))
        address = "" if services.address == DEFAULT_ADDRESS else f" --address {services.address}"
        household = household or "HOUSEHOLD"
        self._console.print("From a second terminal:", markup=False)
        at = datetime.fromtimestamp(time_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
        for command in (
            f"{program} watch {household}{address}",
            f"{program} track {household} {item_id} --kind purchase --time {at}{address}",
            f"{program} snapshot{address}",
            f"{program} rollback{address}  # once a second model serves",
            f"{program} forget {household}{address}",
            f"curl http://127.0.0.1:{services.metrics_port}/metrics",
        ):
            self._console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


async def _load(writer: LogWriter, topic: str, records: Iterable[tuple[str, bytes]], total: int, phase: Phase) -> None:
    """Writes all records and waits until the log has them."""
    start = writer.acked
    for number, (key, value) in enumerate(records):
        if number % _CHUNK == 0:
            phase.update("", writer.acked - start, total)
            await writer.room()
        writer.send(topic, key, value)
    await writer.flush()
    phase.update("", writer.acked - start, total)


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
