"""Models that survive: one push for all engines, restarts without a trainer, roll backs, a registry that is away."""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ousel
import pytest

from engine.config import KafkaConfig, StateConfig
from engine.model.weights import encode_weights
from tests.engine.models import small_weights
from tests.integration.engines import (
    DEADLINE_S,
    ITEMS,
    EngineProcess,
    load,
    push,
    running,
    until,
    wait_until_it_serves,
)

pytestmark = pytest.mark.integration

USERS = [f"u{at}" for at in range(10)]


def weights(version: int) -> bytes:
    return encode_weights(small_weights(ITEMS, version, content_dim=StateConfig().content_dim))


class Fleet:
    """Engines of one log and one registry, each with a name and a folder of its own."""

    def __init__(self, kafka: KafkaConfig, folder: Path, started: ExitStack) -> None:
        self._kafka, self._folder, self._started = kafka, folder, started
        self.models = folder / "models"

    def start(self, name: str, **variables: str) -> EngineProcess:
        return self._started.enter_context(self.one(name, **variables))

    @contextmanager
    def one(self, name: str, **variables: str) -> Iterator[EngineProcess]:
        logs = len(list(self._folder.glob(f"{name}*.log")))
        variables = {
            "OUSEL_SNAPSHOT__DIR": str(self._folder / name / "snapshots"),
            "OUSEL_SNAPSHOT__ENGINE": name,
            "OUSEL_REGISTRY__DIR": str(self.models),
            "OUSEL_INFERENCE__EPSILON": "0",
            "OUSEL_CANARY__MIN_SCORER_SHARE": "0",  # These models are untrained.
            **variables,
        }
        with running(self._kafka, self._folder / f"{name}-{logs}.log", **variables) as engine:
            yield engine

    def copies(self, name: str) -> Path:
        """Where an engine keeps its own copy of the last model."""
        return self._folder / name / "snapshots" / "served-models"

    @contextmanager
    def client(self, engine: EngineProcess) -> Iterator[ousel.Client]:
        with ousel.Client(engine.address, DEADLINE_S) as client:
            yield client


@pytest.fixture
def fleet(kafka_config: KafkaConfig, tmp_path: Path) -> Iterator[Fleet]:
    load(kafka_config)
    with ExitStack() as started:
        yield Fleet(kafka_config, tmp_path, started)


def lists(client: ousel.Client) -> list[list[str]]:
    found = [client.recommend(user, k=10) for user in USERS]
    assert {one.origin for one in found} == {ousel.Origin.MODEL}
    return [[item.item_id for item in one.items] for one in found]


def test_a_restart_with_the_trainer_gone_serves_the_same_model_and_the_same_lists(fleet: Fleet) -> None:
    with fleet.one("a") as engine, fleet.client(engine) as client:
        push(engine.address, weights(1), 1)
        wait_until_it_serves(client, 1)
        before = lists(client)
        assert engine.stop() == 0
    with fleet.one("a") as engine, fleet.client(engine) as client:
        first = client.recommend(USERS[0], k=10)  # `one` waits until health says SERVING, and no longer
        assert (first.model_version, first.origin) == (1, ousel.Origin.MODEL)
        assert lists(client) == before
        assert client.status().model_origin is ousel.ModelOrigin.REGISTRY


def test_three_engines_serve_one_push_and_a_roll_back_and_one_that_was_down_has_both_at_its_start(fleet: Fleet) -> None:
    engines = [fleet.start(name) for name in ("a", "b", "c")]
    with ExitStack() as opened:
        clients = [opened.enter_context(fleet.client(engine)) for engine in engines]
        push(engines[0].address, weights(1), 1)
        for client in clients:
            wait_until_it_serves(client, 1)
        began_s = time.monotonic()
        push(engines[1].address, weights(2), 2)
        for client in clients:
            wait_until_it_serves(client, 2)
        assert time.monotonic() - began_s < DEADLINE_S
        assert [model.state for model in clients[2].list_models().models] == ["serving", "stored"]
        assert clients[2].list_models().models[0].engine == "b"
        with fleet.one("d") as late, fleet.client(late) as client:
            assert client.status().model_version == 2
        back = clients[2].roll_back(2)
        assert (back.version, back.serving) == (1, True)
        for client in clients:
            wait_until_it_serves(client, 1)
        with fleet.one("d") as late, fleet.client(late) as client:
            assert client.status().model_version == 1


def test_a_pin_holds_over_a_restart_until_it_is_taken_away(fleet: Fleet) -> None:
    with fleet.one("a") as engine, fleet.client(engine) as client:
        for version in (1, 2):
            push(engine.address, weights(version), version)
            wait_until_it_serves(client, version)
        assert client.pin_model(1) == 1
        wait_until_it_serves(client, 1)
    with fleet.one("a") as engine, fleet.client(engine) as client:
        assert client.status().model_version == 1
        assert client.unpin_model() == 2
        wait_until_it_serves(client, 2)
        assert client.prune_models(1) == ()  # the version before the one that serves stays, for a roll back


def test_a_registry_whose_folder_is_gone_leaves_the_local_copy_to_a_restart(fleet: Fleet) -> None:
    with fleet.one("a") as engine, fleet.client(engine) as client:
        push(engine.address, weights(1), 1)
        wait_until_it_serves(client, 1)
        until(lambda: list(fleet.copies("a").glob("*.safetensors")), "a copy is kept")
        before = lists(client)
    with fleet.one("b") as engine, fleet.client(engine) as client:
        push(engine.address, weights(2), 2)
        wait_until_it_serves(client, 2)
    shutil.rmtree(fleet.models)
    with fleet.one("a", OUSEL_REGISTRY__WAIT_S="0.5") as engine, fleet.client(engine) as client:
        status = client.status()
        assert (status.model_version, status.model_origin) == (1, ousel.ModelOrigin.LOCAL_COPY)
        assert "2-" in status.registry_problem and "is missing" in status.registry_problem
        assert lists(client) == before


def test_nobody_else_may_read_the_models(fleet: Fleet) -> None:
    with fleet.one("a") as engine, fleet.client(engine) as client:
        push(engine.address, weights(1), 1)
        wait_until_it_serves(client, 1)
        copies = fleet.copies("a")
        until(lambda: len(list(copies.glob("*.json"))) == 2, "a copy is kept")
    for folder in (fleet.models, copies):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        assert sorted(path.suffix for path in folder.iterdir() if not path.name.startswith("."))[:1] == [".json"]
