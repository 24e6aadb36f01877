"""The file that the demo leaves behind."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from deploy.demo.measure import Freshness, HitRate
from deploy.demo.summary import Result, print_table, write_json

_RESULT = Result(
    events_produced=20_000,
    events_folded=19_999,
    events_dead_lettered=1,
    events_elsewhere=2,
    freshness=Freshness(p50_ms=12.3456, p99_ms=98.7654, samples=5000, superseded=7, unchanged=3),
    hits=HitRate(events=4000, ousel_hits=800, popularity_hits=400, unmeasured=5),
    model_versions=(1, 2),
    model_metrics={"hit_rate@20": 0.2},
    failed_calls=0,
    events_per_second=149.96,
    wanted_per_second=150.0,
    households_followed=300,
    setup_s={"train": 150.2},
    problems=("19,999 of 20,000",),
)


def test_the_file_has_every_figure_under_its_documented_name(tmp_path: Path) -> None:
    path = tmp_path / "new" / "demo.json"
    write_json(_RESULT, path)
    assert json.loads(path.read_text()) == {
        "events_produced": 20_000,
        "events_folded": 19_999,
        "events_dead_lettered": 1,
        "events_elsewhere": 2,
        "freshness_ms": {"p50": 12.35, "p99": 98.77, "samples": 5000, "superseded": 7, "unchanged": 3},
        "hit_rate_at_20": {"ousel": 0.2, "popularity": 0.1, "events": 4000, "unmeasured": 5},
        "model_versions": [1, 2],
        "model_metrics": {"hit_rate@20": 0.2},
        "failed_calls": 0,
        "events_per_second": 150.0,
        "wanted_per_second": 150.0,
        "households_followed": 300,
        "setup_s": {"train": 150.2},
        "problems": ["19,999 of 20,000"],
    }


def test_an_earlier_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    path.write_text("earlier")
    with pytest.raises(TypeError):
        write_json(replace(_RESULT, model_metrics={"bad": object()}), path)  # type: ignore[dict-item]
    assert path.read_text() == "earlier"
    write_json(_RESULT, path)
    assert json.loads(path.read_text())["events_produced"] == 20_000
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_measured_nothing_is_still_written_and_shown(tmp_path: Path) -> None:
    nothing = replace(_RESULT, freshness=Freshness(None, None, 0, 0, 0), hits=HitRate(), model_versions=())
    write_json(nothing, tmp_path / "demo.json")
    assert json.loads((tmp_path / "demo.json").read_text())["freshness_ms"]["p50"] is None
    console = Console(file=io.StringIO())
    print_table(nothing, console)
    assert isinstance(console.file, io.StringIO)
    assert "20,000" in console.file.getvalue()
