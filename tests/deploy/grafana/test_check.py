"""What the check of the dashboards asks, and the pictures that it draws of the answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.grafana.boards import BOARDS
from deploy.grafana.check import legend_of, plain
from deploy.grafana.panel import Board, Query
from deploy.grafana.pictures import draw, shown
from deploy.prometheus.server import Series


def test_an_expression_without_grafana_asks_for_all_instances() -> None:
    assert plain('rate(a{instance=~"$instance"}[$__rate_interval])') == 'rate(a{instance=~".*"}[20s])'
    assert legend_of(Query("{{stage}} {{none}}", ""), Series({"stage": "fold"}, [], [])) == "fold "


def test_values_are_shown_short_in_their_unit() -> None:
    told = [shown(*one) for one in ((0.5, "percentunit"), (0.0123, "s"), (90.0, "s"), (2.5e9, "bytes"), (7.0, "cps"))]
    assert told == ["50%", "12.3 ms", "90 s", "2.5GB", "7/s"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_can_be_drawn_also_where_a_panel_has_no_data(board: Board, tmp_path: Path) -> None:
    first, *rest = board.panels
    drawn = {first: [("one", Series({}, [1.0, 2.0], [0.5, 0.25]))]} | {panel: [] for panel in rest}
    draw(board, drawn, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
