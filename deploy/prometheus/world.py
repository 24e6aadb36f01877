"""A small shop for a rehearsal or a check: the embedded broker, an engine, a trainer, and people who shop."""

from __future__ import annotations

import os
import random
import re
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import ousel
from ousel.v1 import catalog_pb2, event_pb2

from benchmarks.swap_models import push_honest
from deploy.local.broker import EmbeddedBroker
from deploy.local.processes import Child
from deploy.prometheus.server import wait_until
from engine.config import KafkaConfig
from engine.events.producer import EventProducer
from trainer.push import PushError, versions

ITEMS = [f"item{at:03}" for at in range(300)]
_USERS = 200
_START_S = 600.0  # of a process on a machine that is busy with others
_SETTINGS = {
    "OUSEL_SERVING__PORT": "0", "OUSEL_SERVING__METRICS_PORT": "0", "OUSEL_TRAINER__METRICS_PORT": "0",
    "OUSEL_SNAPSHOT__INTERVAL_S": "5", "OUSEL_INDEX__PROBE_QUERIES": "1",
    "OUSEL_TRAINER__MIN_EVENTS": "1000000",
    # The models that are pushed have learned nothing: it is not they that are looked at.
    "OUSEL_CANARY__MIN_SCORER_SHARE": "0", "OUSEL_CANARY__MIN_HIT_RATE_SHARE": "0",
}  # fmt: skip


# The engine's own process in the end, which sees another folder of snapshots than all others do.
_OWN_DISK = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=48m none "$0" && exec "$@"')

_TRAINING = {
    "OUSEL_TRAINER__MIN_EVENTS": "1000", "OUSEL_TRAINER__FIRST_MINUTES": "0.2", "OUSEL_TRAINER__MAX_MINUTES": "0.3",
}  # fmt: skip


class WorldError(RuntimeError):
    """A process of the shop has ended or does not get ready; the message has the end of its log."""


class World:
    """The processes of the shop; each can be ended and started again at the same addresses. A context manager.

    Args:
        folder: of logs, data and snapshots.
        settings: variables of engine and trainer beside the usual ones.
        own_disk: has the engine's snapshots on a disk of their own, of 48 MB, which `fill_disk` fills. It takes the
            right to mount one in a namespace, which root has and other users mostly.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, own_disk: bool = False) -> None:
        self.folder = folder
        self._snapshots = folder / "snapshots"
        self._snapshots.mkdir(parents=True)
        self._before = [*_OWN_DISK, str(self._snapshots)] if own_disk else []
        self._held = ExitStack()
        self.broker = self._held.enter_context(EmbeddedBroker(folder / "broker"))
        self.kafka = KafkaConfig.model_validate(self.broker.client_settings())
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OUSEL_")}
        self._env = clean | _SETTINGS | {"OUSEL_KAFKA__BOOTSTRAP": self.broker.bootstrap, "PYTHONUNBUFFERED": "1"}
        self._env |= {"OUSEL_SNAPSHOT__DIR": str(self._snapshots)} | dict(settings or {})
        self.engine: Child | None = None
        self.trainer: Child | None = None
        try:
            self.start_engine()
            self.start_trainer()
        except BaseException:
            self.close()
            raise

    def start_engine(self) -> None:
        """Starts it and waits until it is ready; a later start takes the ports of the first.

        Raises:
            WorldError: it has ended, or is not ready within ten minutes.
        """
        command = [*self._before, sys.executable, "-m", "engine", "serve"]
        self.engine = Child("engine", command, self.folder / "engine.log", self._env)
        self.address, self.metrics_address = self._said(self.engine, r"gRPC on (\S+), metrics on (\S+)/metrics")
        self._env |= {
            "OUSEL_SERVING__PORT": self.address.rpartition(":")[2],
            "OUSEL_SERVING__METRICS_PORT": self.metrics_address.rpartition(":")[2],
            "OUSEL_TRAINER__ENGINE": self.address,
        }
        self._said(self.engine, r"(ready): ")

    def start_trainer(self) -> None:
        """Starts it and waits until it serves its metrics; see `start_engine`."""
        command = [sys.executable, "-m", "trainer", "run"]
        self.trainer = Child("trainer", command, self.folder / "trainer.log", self._env)
        (self.trainer_address,) = self._said(self.trainer, r"metrics on (\S+)/metrics")
        self._env["OUSEL_TRAINER__METRICS_PORT"] = self.trainer_address.rpartition(":")[2]

    @property
    def engine_pid(self) -> int:
        if self.engine is None:
            raise WorldError("the engine was not started")
        return self.engine.pid

    def fill_disk(self) -> None:
        """Fills the engine's own disk to the last byte."""
        with suppress(OSError), self._filling().open("wb") as file:
            while True:
                file.write(bytes(2**20))

    def clear_disk(self) -> None:
        """Gives back what `fill_disk` took."""
        self._filling().unlink()

    def _filling(self) -> Path:
        return Path(f"/proc/{self.engine_pid}/root{self._snapshots}/filling")

    def fill(self, events: int = 3000) -> None:
        """Writes a catalog and some past to the log."""
        draw = random.Random(1)
        producer = EventProducer(self.kafka)
        try:
            sent = [
                producer.send_item(catalog_pb2.Item(item_id=item, title=item.title(), categories=["all"]))
                for item in ITEMS
            ]
            for _ in range(events):
                user, item = f"user{draw.randrange(_USERS)}", ITEMS[min(299, int(draw.expovariate(0.02)))]
                sent.append(producer.send_event(event_pb2.Event(user_id=user, item_id=item, kind="view")))
            for one in sent:
                one.result(_START_S)
        finally:
            producer.close()

    def push_model(self) -> None:
        """Pushes an untrained model as the next version and waits until it serves.

        Raises:
            WorldError: it does not serve.
        """
        try:
            known = versions(self.address)
            push_honest(self.address, ITEMS, (known.newest if known else 0) + 1)
        except PushError as error:
            raise WorldError(f"{error}:\n{self._tail(self.engine)}") from None

    def train(self) -> None:
        """Has the trainer begin a short training, by another start."""
        if self.trainer is not None:
            self.trainer.stop()
        self._env |= _TRAINING
        self.start_trainer()

    def close(self) -> None:
        for child in (self.trainer, self.engine):
            if child is not None:
                child.stop()
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _said(self, child: Child, pattern: str) -> tuple[str, ...]:
        def look() -> re.Match[str] | None:
            if child.wait(0) is not None:
                raise WorldError(f"{child.name} has ended:\n{self._tail(child)}")
            return re.search(pattern, child.log_path.read_text(errors="replace"))

        wait_until(look, _START_S)
        found = look()
        if found is None:
            raise WorldError(f"{child.name} did not say {pattern!r} within {_START_S:g} s:\n{self._tail(child)}")
        return found.groups()

    @staticmethod
    def _tail(child: Child | None) -> str:
        return child.log_tail(10) if child is not None else ""


class Shoppers:
    """People who shop, in threads: each looks at a list and then at an item, of the list or of none. A context manager.

    Args:
        per_s: looks of all together.
        streams: of them, so many have a stream open and others ask.

    Attributes:
        hits: the share of looks at an item of the list; may be changed while they shop.
        empty: the share of calls that ask for a category that no item has.
        streaming: the users who have a stream.
    """

    def __init__(self, address: str, per_s: float = 8.0, streams: int = 4) -> None:
        self.hits, self.empty = 0.5, 0.0
        self.streaming = [f"user{number}" for number in range(streams)]
        self._address, self._pause_s = address, 2 * streams / per_s
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._shop, args=(at, at < streams), daemon=True) for at in range(2 * streams)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _shop(self, number: int, streaming: bool) -> None:
        draw = random.Random(number)
        while not self._stop.is_set():
            with suppress(ousel.OuselError), ousel.Client(self._address, timeout_s=2.0) as client:
                if streaming:
                    self._stream(client, draw, f"user{number}")
                else:
                    self._ask(client, draw)
            self._stop.wait(self._pause_s)

    def _ask(self, client: ousel.Client, draw: random.Random) -> None:
        while not self._stop.wait(self._pause_s):
            user = f"user{draw.randrange(_USERS)}"
            if draw.random() < self.empty:
                client.recommend(user, k=10, categories=["nothing has it"])
                continue
            items = [item.item_id for item in client.recommend(user, k=10).items]
            client.track(self._choice(draw, items), user)

    def _stream(self, client: ousel.Client, draw: random.Random, user: str) -> None:
        """Looks at its own pace, as people do: a list that is no news does not come."""
        newest: list[str] = []

        def read(updates: ousel.Subscription) -> None:
            with suppress(ousel.OuselError):
                for update in updates:
                    newest[:] = [item.item_id for item in update.list.items]

        with client.stream(user, k=10) as updates:
            reader = threading.Thread(target=read, args=(updates,), daemon=True)
            reader.start()
            while reader.is_alive() and not self._stop.wait(self._pause_s):
                client.track(self._choice(draw, list(newest)), user)

    def _choice(self, draw: random.Random, items: list[str]) -> str:
        """An item of the list, or one that is not in it."""
        if items and draw.random() < self.hits:
            return draw.choice(items)
        return draw.choice([item for item in ITEMS if item not in items])
