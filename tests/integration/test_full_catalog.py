"""A catalog that holds fewer items than its topic has: it is the same, whenever events and records were read."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import ousel
import pytest
from ousel.v1 import catalog_pb2

from engine.config import KafkaConfig
from tests.integration.engines import DEADLINE_S, EngineProcess, purchase, running, until, write

pytestmark = pytest.mark.integration

USED = [f"used-{at}" for at in range(4)]
SETTINGS = {"OUSEL_STATE__MAX_ITEMS": "10", "OUSEL_STATE__CATALOG_RECALL_S": "0.1"}


def recalled(engine: EngineProcess) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics", timeout=DEADLINE_S) as page:
        found = re.search(r"^ousel_catalog_recalled_total (\S+)$", page.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


def test_an_engine_that_was_there_first_and_one_that_starts_later_have_the_records_of_all_used_items(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    items = [catalog_pb2.Item(item_id=name, title=f"Title {name}") for name in USED]
    # One item after the other, so that the records of the used ones are the oldest of their partitions.
    invented = [catalog_pb2.Item(item_id=f"invented-{at}", title="Buy this") for at in range(200)]
    events = [purchase(f"u{at}", USED[at % 4], f"e{at}") for at in range(12)]
    with (
        running(kafka_config, tmp_path / "1.log", **SETTINGS) as first,
        ousel.Client(first.address, DEADLINE_S) as client,
    ):
        write(kafka_config, [], items + invented)
        until(lambda: client.status().items_folded == len(items + invented), first.log)
        write(kafka_config, events)
        until(lambda: client.status().events_folded == len(events) and recalled(first) == len(USED), first.log)
        before = client.get_digest()
    with (
        running(kafka_config, tmp_path / "2.log", **SETTINGS) as second,
        ousel.Client(second.address, DEADLINE_S) as client,
    ):
        assert recalled(second) == len(USED)  # before it was ready
        assert client.get_digest() == before
        assert "catalog: 4 records brought back" in second.log()
