"""Law 7, for the operator: the table in docs/limits.md has every bound, with its size and metric."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from engine import live_quality, metrics_server
from engine.config import Config
from engine.events import dead_letter, letter_writer, letters_written, payload
from engine.events.producer import EventProducer
from engine.serving import foreign_calls, health_port, lists, model_servicer, requests, server, state_servicer
from engine.state import session_users, sessions

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

# A threshold of readiness, which bounds nothing that could grow.
NO_BOUND = {"serving.max_log_age_s"}
# Here the oldest or the least gives way, at a size that is reached in ordinary service: nobody has to watch it.
UNWATCHED = {
    "events kept per user or session", "relations kept per user, per item and per entity",
    "users and next items kept per item", "what one user adds to the popularity of one item",
    "pairs of a user and an item that came again, of which this is known", "sessions linked to a user",
    "list of popular items",
    "users that one session links", "sessions whose users are counted",
    "letters of which the engine knows that they are written", "size of a dead letter",
    "items whose part of a list is kept as bytes", "a broker's answer to a fetch",
    "rows noted for a model that is being built, and for the one before the serving one",
}  # fmt: skip
# The sizes that no setting changes, as the code has them, in the order of the row.
CONSTANTS = {
    "sessions linked to a user": [sessions.LINKS],
    "users that one session links": [session_users.MOST_USERS],
    "events sent by `Track` and not acknowledged": [EventProducer.__init__.__defaults__[0]],
    "dead letters not written": [letter_writer.MAX_LETTERS, letter_writer.MAX_BYTES],
    "letters of which the engine knows that they are written": [letters_written._MAX_LETTERS],
    "size of a dead letter": [dead_letter.MAX_VALUE_BYTES, dead_letter._MAX_REASON_BYTES],
    "streams of health and of reflection": [foreign_calls._MAX_OPEN, foreign_calls._REFLECTION_S],
    "`GetDigest`, and `TakeSnapshot` calls": [state_servicer._MOST_REST_S, state_servicer._MAX_WAITING],
    "connections to the port of health alone": [health_port.MAX_CONNECTIONS],
    "connections to the metrics port": [
        metrics_server._MAX_OPEN, metrics_server._ANSWER_S, metrics_server._SILENCE_S
    ],
    "model versions whose live figures are shown": [live_quality.VERSIONS, live_quality.DEPTH],
    "items whose part of a list is kept as bytes": [lists.KEPT_ITEMS, lists.MOST_KEPT_CHARS],
    "pushes that are open and have sent no header": [model_servicer._MAX_HEADERLESS],
    "partitions that the header of a push says it was trained on": [requests.MAX_TRAINED_ON],
    "metrics in the header of a push": [requests.MAX_METRICS, requests.MAX_METRIC_BYTES],
    "version of a pushed model": [requests.MAX_VERSION_STEP],
    "unknown fields that a log line or a reason names": [payload._MAX_NAMES],
}  # fmt: skip


class Row(NamedTuple):
    bound: str
    limit: str
    watch: str
    behavior: str


def table() -> list[Row]:
    part = PAGE.split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")][2:]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]


ROWS = table()


def numbers(text: str) -> list[float]:
    found = re.findall(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?: ([KMG]iB))?", text)
    return [float(number.replace(",", "")) * UNITS.get(unit, 1) for number, unit in found]


def test_every_setting_that_bounds_something_has_a_row():
    sections = {name: getattr(field.annotation, "model_fields", {}) for name, field in Config.model_fields.items()}
    bounds = {f"{section}.{name}" for section, found in sections.items() for name in found if name.startswith("max_")}
    named = set(re.findall(r"`(\w+\.\w+)`", " ".join(row.limit for row in ROWS)))
    assert len(bounds) > 20
    assert bounds - named == NO_BOUND


def test_a_row_states_the_defaults_of_its_settings():
    config, stated = Config(), 0
    for row in ROWS:
        for section, name, default in re.findall(r"`(\w+)\.(\w+)` \((\d[^)]*)\)", row.limit):
            stated += 1
            assert numbers(default)[:1] == [getattr(getattr(config, section), name)], f"{section}.{name}"
    assert stated > 30


@pytest.mark.parametrize("bound", CONSTANTS)
def test_a_row_states_the_size_that_the_code_has(bound):
    (row,) = [row for row in ROWS if row.bound == bound]
    stated = iter(numbers(row.limit))
    assert all(size in stated for size in CONSTANTS[bound]), row.limit


@pytest.mark.parametrize("row", ROWS, ids=[row.bound for row in ROWS])
def test_every_bound_has_a_limit_a_metric_and_a_stated_behavior(row):
    assert row.limit and row.behavior
    assert bool(re.search(r"`(ousel|process)_", row.watch)) == (row.bound not in UNWATCHED)
    codes = re.findall(r'code="(\w+)"', row.watch)
    assert all(code in row.behavior and hasattr(grpc.StatusCode, code) for code in codes)


def test_the_server_closes_silent_connections_as_the_table_says():
    (row,) = [row for row in ROWS if row.bound == "connections to the gRPC port"]
    assert f"after {server._FIRST_FRAME_MS // 1000} s" in row.behavior
    assert f"after {server._IDLE_MS // 60_000} minutes" in row.behavior
