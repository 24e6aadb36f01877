"""The alert rules: each has its texts, its place in the runbook, its tests, and metrics that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from engine import metrics
from engine.objectives import AVAILABILITY, FRESHNESS, LATENCY
from tests.docs.test_links import anchors
from trainer import metrics as trainer_metrics

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = sorted(FOLDER.glob("rules/*.yml"))
TESTS = sorted(FOLDER.glob("tests/*.yml"))
PROMETHEUS_OWN = {"up", "process_resident_memory_bytes", "process_start_time_seconds"}
MONITORING = ROOT / "docs" / "monitoring.md"


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def samples() -> set[str]:
    """The names of all series that engine and trainer serve."""
    names = set(PROMETHEUS_OWN)
    for module in (metrics, trainer_metrics):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                name = metric._name
                if isinstance(metric, Counter):
                    names.add(f"{name}_total")
                elif isinstance(metric, Histogram):
                    names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
                else:
                    names.add(name)
    return names


def test_every_series_that_a_rule_names_is_served_or_recorded():
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        named = set(re.findall(r"\b(?:ousel[a-z0-9_:]+|up|process_[a-z_]+)\b", re.sub(r'"[^"]*"', "", rule["expr"])))
        assert named, rule
        assert named <= samples() | recorded, rule


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_severity_its_texts_and_a_place_in_the_runbook(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == name.lower()
    assert anchor in anchors(ROOT / page)
    assert rule["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_test_in_which_it_fires_and_then_clears(name):
    found = []
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            if test["name"].startswith(f"{name}:"):
                found += [(check["expr"], check["exp_samples"][0]["value"]) for check in test["promql_expr_test"]]
    expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    assert found == [(expression, 1), (expression, 0)]


def test_the_runbook_and_the_page_on_monitoring_name_every_alert_and_no_other():
    runbook = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"^### (Ousel\w+)$", runbook, re.MULTILINE)) == ALERTS.keys()
    table = dict(re.findall(r"^\| \[(Ousel\w+)\]\([^)]*\) \| (\w+) \|", MONITORING.read_text(), re.MULTILINE))
    assert table == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


def test_the_rules_hold_engines_to_the_objectives():
    text = (FOLDER / "rules" / "objectives.yml").read_text()
    assert text.count(f'ousel_freshness_seconds_bucket{{le="{FRESHNESS.within_s}"}}') == 5
    assert text.count(f'Recommend",le="{LATENCY.within_s}"}}') == 5
    for name, share in (("freshness", FRESHNESS.share), ("latency", LATENCY.share), ("calls", AVAILABILITY)):
        for window, factor in (("1h", 14.4), ("5m", 14.4), ("6h", 6), ("30m", 6), ("3d", 1)):
            found = re.search(rf"ousel:{name}_\w+:ratio_rate{window} > ([\d.]+)", text)
            assert float(found[1]) == pytest.approx(factor * (1 - share)), (name, window)


PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
with_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="promtool is not at hand: put it on the PATH, or name it by PROMTOOL"
)


def promtool(*arguments: object) -> str:
    done = subprocess.run([str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@with_promtool
def test_promtool_takes_the_rules():
    assert promtool("check", "rules", *RULES).count("SUCCESS") == len(RULES)


@with_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_promtool_sees_every_alert_fire_and_clear(path):
    assert "SUCCESS" in promtool("test", "rules", path)
