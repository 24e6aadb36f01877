"""The dashboards that are committed are those of the code, and they ask for what is there."""

from __future__ import annotations

import json
import re

import pytest

from deploy.grafana.boards import BOARDS
from deploy.grafana.panel import Board
from tests.deploy.prometheus.test_rules import samples

grafana_json = pytest.importorskip(
    "deploy.grafana.grafana_json", reason="grafana-foundation-sdk is not installed", exc_type=ImportError
)
boards = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


@boards
def test_the_committed_json_is_what_the_code_makes(board: Board) -> None:
    path = grafana_json.FOLDER / f"{board.uid}.json"
    assert path.read_text() == grafana_json.dashboard_json(board), "run: python -m deploy.grafana.grafana_json"


def test_no_other_dashboard_is_committed() -> None:
    assert {path.stem for path in grafana_json.FOLDER.iterdir()} == {board.uid for board in BOARDS}


@boards
def test_every_panel_has_an_id_of_its_own_a_description_and_the_chosen_prometheus(board: Board) -> None:
    made = json.loads(grafana_json.dashboard_json(board))
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    assert len(panels) == len(board.panels)
    assert all(panel["description"] and panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    assert {"datasource", "instance"} == {variable["name"] for variable in made["templating"]["list"]}


@boards
def test_every_series_that_a_panel_asks_for_is_served(board: Board) -> None:
    for panel in board.panels:
        for query in panel.queries:
            text = re.sub(r'"[^"]*"', "", query.expression)
            named = set(re.findall(r"\b(?:ousel_[a-z_]+|process_[a-z_]+|ALERTS)\b", text))
            assert named and named <= samples() | {"ALERTS", "process_cpu_seconds_total"}, (panel.title, named)
