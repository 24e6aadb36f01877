"""Five thousand calls at once on a real engine, from a stock client in another process."""

from __future__ import annotations

import urllib.request

import ousel
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.engine.serving.burst import burst
from tests.integration.engines import DEADLINE_S, EngineProcess, load, running, until

pytestmark = pytest.mark.integration

CALLS = 5000


def counted(engine: EngineProcess, method: str) -> dict[str, int]:
    """The engine's own count of calls by how they ended."""
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics", timeout=DEADLINE_S) as page:
        families = text_string_to_metric_families(page.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.name == "ousel_calls_total"]
    return {s.labels["code"]: int(s.value) for s in samples if s.labels["method"] == method}


def test_each_call_of_a_burst_is_answered_or_refused_with_a_hint_and_counted(kafka_config, tmp_path):
    load(kafka_config)
    with running(kafka_config, tmp_path / "engine.log") as engine, ousel.Client(engine.address, DEADLINE_S) as client:
        for service, method, channels in (
            ("RecommenderService", "Recommend", 1),
            ("RecommenderService", "Recommend", 50),
            ("EventService", "Track", 1),
            ("EventService", "Track", 50),
        ):
            before = counted(engine, f"{service}/{method}")
            ended = burst(engine.address, method, CALLS, channels)
            assert sum(ended.codes.values()) == CALLS
            assert ended.codes.keys() <= {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}, ended
            refused = {code: count for code, count in ended.codes.items() if code != "OK"}
            assert {code: ended.hinted[code] for code in refused} == refused, ended

            def ours(method: str = f"{service}/{method}", before: dict[str, int] = before) -> dict[str, int]:
                now = counted(engine, method)
                return {code: now[code] - before.get(code, 0) for code in now if now[code] != before.get(code, 0)}

            until(lambda expected=ended.codes, ours=ours: ours() == expected, ours)
        tracked = client.status().events_folded - 200
        assert client.recommend("u1", k=5).items
    assert tracked <= 2 * CALLS
