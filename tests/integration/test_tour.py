"""The README's tour, as it stands there, beside a small demo that sends its own purchases meanwhile."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ousel import AsyncClient, Client
from ousel.v1 import catalog_pb2

from deploy.demo.data import Purchases, events
from deploy.demo.live import LiveOptions, LivePart
from deploy.demo.popularity import DecayedPopularity
from deploy.demo.summary import Result
from deploy.demo.writer import LogWriter
from engine.config import KafkaConfig, StateConfig
from engine.model.weights import encode_weights
from tests.engine.models import small_weights
from tests.integration.engines import DEADLINE_S, EngineProcess, push, running, wait_until_it_serves, write

pytestmark = pytest.mark.integration

README = (Path(__file__).parents[2] / "README.md").read_text()
TOUR = README[README.index("### Five minutes with it") : README.index("## How it works")]
HOUSEHOLD, PRODUCT = 1716, 1082185  # the tour's
PRODUCTS = [PRODUCT, *range(1, 30)]
_DAY_MS = 86_400_000
_MARCH_MS = 1_488_776_400_000  # 2017-03-06T05:00:00Z, when the demo's live part begins
_PARTITIONS = 3
# Two purchases, by the shell and by Python, and a record in every partition that forgets the household.
_ELSEWHERE = 2 + _PARTITIONS


def tour(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TOUR, re.DOTALL)
    assert found
    return found[1]


COMMANDS = [line.partition("#")[0].strip() for line in tour("sh").splitlines() if not line.startswith("#")]


def purchases(count: int, basket: int, first_ms: int, last_ms: int) -> Purchases:
    """Baskets of four, numbered from `basket` on, by 20 households, the tour's among them."""
    number = np.arange(count)
    household = np.where(number // 4 % 20 == 0, HOUSEHOLD, number // 4 % 20)
    product = np.array(PRODUCTS)[number * 7 % len(PRODUCTS)]
    time_ms = np.linspace(first_ms, last_ms, count).astype(np.int64)
    return Purchases(household, basket + number // 4, product, np.ones_like(number), time_ms)


class Tour(NamedTuple):
    """A demo's result, and the popular items of a user that nobody knows, before and after."""

    result: Result
    before: dict[str, float]
    after: dict[str, float]


@pytest.fixture
def engine(kafka_config: KafkaConfig, tmp_path: Path) -> Iterator[EngineProcess]:
    """It serves a second model, which a roll back needs."""
    items = [catalog_pb2.Item(item_id=str(product), title=f"Product {product}") for product in PRODUCTS]
    write(kafka_config, events(purchases(400, 1000, _MARCH_MS - 7 * _DAY_MS, _MARCH_MS)), items)
    variables = {"OUSEL_SNAPSHOT__DIR": str(tmp_path / "snapshots"), "OUSEL_CANARY__MIN_SCORER_SHARE": "0"}
    with running(kafka_config, tmp_path / "engine.log", **variables) as engine:
        for version in (1, 2):
            weights = small_weights(list(map(str, PRODUCTS)), version, content_dim=StateConfig().content_dim)
            push(engine.address, encode_weights(weights), version)
            with Client(engine.address, timeout_s=DEADLINE_S) as client:
                wait_until_it_serves(client, version)
        yield engine


def on_this_engine(command: str, engine: EngineProcess) -> list[str]:
    """A command of the tour, ended by itself and without a question where a person would do so."""
    words = shlex.split(command)
    assert words[0] == ".venv/bin/ousel", command
    more = {"watch": ["--updates", "1"], "forget": ["--yes"]}.get(words[1], [])
    return [sys.executable, "-m", "ousel.cli", *words[1:], *more, "--address", engine.address]


def take_tour(engine: EngineProcess) -> None:
    for command in COMMANDS:
        if command.startswith("curl"):
            name = command.rpartition(" ")[2]
            with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics", timeout=DEADLINE_S) as page:
                assert name in page.read().decode()
            continue
        words = on_this_engine(command, engine)
        done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout, command
    snippet = tour("python").replace("127.0.0.1:50051", engine.address)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", snippet], stdout=subprocess.PIPE, text=True, env=environment) as ran:
        assert ran.stdout is not None
        # Five items, and the first list of the stream, which has no end.
        lines = [ran.stdout.readline() for _ in range(6)]
        ran.kill()
    assert lines[-1].startswith("subscribed"), lines


def popular(engine: EngineProcess) -> dict[str, float]:
    with Client(engine.address, timeout_s=DEADLINE_S) as client:
        return {item.item_id: item.score for item in client.recommend(user_id="nobody knows", k=20).items}


async def toured_demo(engine: EngineProcess, kafka: KafkaConfig) -> Tour:
    """Sends 300 purchases while the tour is taken."""
    live = purchases(300, 2000, _MARCH_MS, _MARCH_MS + _DAY_MS)
    writer = LogWriter(kafka, linger_ms=0)
    options = LiveOptions(events=300, rate=100.0, tills=4, household=None)
    user_ids = [str(HOUSEHOLD), *map(str, range(1, 20))]
    async with asyncio.timeout(3 * DEADLINE_S), AsyncClient(engine.address) as client:
        part = LivePart(
            client, writer, kafka.events_topic, live, 400, DecayedPopularity(), {}, user_ids, options
        )  # fmt: skip
        await part.subscribe()
        before = popular(engine)
        status = asyncio.create_task(part.keep_status())
        replay = asyncio.create_task(part.replay())
        await asyncio.to_thread(take_tour, engine)
        await replay
        status.cancel()
        # The demo waits for its own events alone; the tour's last record may lie behind them in its partition.
        while part.result({}).events_elsewhere < _ELSEWHERE:
            await part.settle()
        await part.close()
    writer.close()
    return Tour(part.result({}), before, popular(engine))


async def test_the_tour_of_the_readme_goes_on_beside_the_demo(engine: EngineProcess, kafka_config: KafkaConfig) -> None:
    toured = await toured_demo(engine, kafka_config)
    result = toured.result
    assert result.problems == ()
    assert (result.events_produced, result.events_folded, result.events_dead_lettered) == (300, 300, 0)
    assert result.events_elsewhere == _ELSEWHERE
    # The rolled back model serves, and what was popular is so still: its scores fall with a day, not with years.
    assert result.model_versions[-1] == 1
    assert min(toured.after[item] / score for item, score in toured.before.items() if item in toured.after) > 0.5
