"""Draws the panels of a dashboard from what its queries gave, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from deploy.grafana.panel import Board, Panel
from deploy.prometheus.server import Series

Drawn = Mapping[Panel, Sequence[tuple[str, Series]]]  # each series with its legend

_COLUMNS = 4
_WIDTH_IN, _HEIGHT_IN, _DPI = 3.6, 2.1, 70
_MOST_LEGENDS = 5
_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def draw(board: Board, drawn: Drawn, path: Path) -> None:
    """Writes a PNG of all panels, four in a row."""
    panels = board.panels
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _WIDTH_IN, rows * _HEIGHT_IN + 0.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(board.title, fontsize=12)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, _COLUMNS, place + 1)
        axes.set_title(panel.title, fontsize=8)
        (_draw_value if panel.stat else _draw_graph)(axes, panel, drawn[panel])
    figure.savefig(path, metadata={"Software": None})


def _draw_value(axes: Axes, panel: Panel, series: Sequence[tuple[str, Series]]) -> None:
    value = series[0][1].values[-1] if series else float("nan")
    axes.text(0.5, 0.5, shown(value, panel.unit), ha="center", va="center", fontsize=20)
    axes.set_axis_off()


def _draw_graph(axes: Axes, panel: Panel, series: Sequence[tuple[str, Series]]) -> None:
    for place, (legend, one) in enumerate(series):
        days = [date2num(datetime.fromtimestamp(at_s, UTC)) for at_s in one.times_s]
        axes.plot(days, one.values, linewidth=1, label=legend if place < _MOST_LEGENDS else None)
    if panel.least is not None:
        axes.axhline(panel.least, color="tab:red", linewidth=0.6, linestyle="--")
    axes.set_ylim(bottom=None if panel.least else 0)
    locator = AutoDateLocator(minticks=2, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set_visible(False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, panel.unit)))
    axes.tick_params(labelsize=6)
    if any(legend for legend, _ in series):
        axes.legend(fontsize=5, loc="upper left", frameon=False)


def shown(value: float, unit: str) -> str:
    """A value in one of Grafana's units, short."""
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    for size, letter in _STEPS:
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}{'B' if unit == 'bytes' else ''}"
    return f"{value:.3g}{'/s' if unit in ('cps', 'reqps') else ''}"
