"""What a process says of itself: its build, its settings without their values, its memory and its disks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from engine import metrics
from engine.config import Config, RankingConfig, ServingConfig
from engine.process_metrics import describe_build, describe_settings, watch_disk, watch_reader


@pytest.fixture(autouse=True)
def shown_anew():
    for metric in (metrics.BUILD_INFO, metrics.CONFIG_INFO, metrics.DISK_FREE, metrics.DISK_SIZE):
        metric.clear()
    yield
    metrics.READER_MEMORY.set_function(lambda: 0.0)


def labels(name: str) -> list[dict[str, str]]:
    return [sample.labels for family in REGISTRY.collect() for sample in family.samples if sample.name == name]


def test_the_build_is_one_series_with_the_versions_that_matter():
    describe_build("engine")
    (found,) = labels("ousel_build_info")
    assert (found["program"], found.keys()) == ("engine", {"program", "version", "python", "torch"})
    assert all(found.values())
    assert REGISTRY.get_sample_value("ousel_memory_limit_bytes") > 0


def digest(config: Config) -> str:
    metrics.CONFIG_INFO.clear()
    describe_settings(config)
    (found,) = labels("ousel_config_info")
    return found["settings"]


def test_engines_that_would_make_other_lists_differ_in_the_digest_and_others_do_not():
    same = digest(Config())
    assert digest(Config(serving=ServingConfig(port=1234))) == same
    assert digest(Config(ranking=RankingConfig(index_candidates=77))) != same
    assert len(same) == 12


def test_a_disk_shows_what_is_left_of_it_also_before_its_folder_is_made(tmp_path: Path):
    watch_disk("snapshots", tmp_path / "not" / "made")
    free, size = (
        REGISTRY.get_sample_value(f"ousel_disk_{one}_bytes", {"folder": "snapshots"}) for one in ("free", "size")
    )
    assert 0 <= free <= size
    assert size > 0


def test_the_reading_process_shows_its_memory_until_it_ends():
    watch_reader(os.getpid())
    assert REGISTRY.get_sample_value("ousel_reader_memory_bytes") > 10e6
    watch_reader(2**30)  # no such process
    assert REGISTRY.get_sample_value("ousel_reader_memory_bytes") == 0
