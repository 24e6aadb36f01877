"""The view of the live part: redrawn in place in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.demo.measure import Freshness, HitRate
from deploy.demo.spotlight import Card

_LINE_S = 5.0
_CARD_EVERY = 3  # lines
_BASKET_ROWS = 10
_SIDE_BY_SIDE = 110  # columns
_NUMBERS_WIDTH = 42


@dataclass(frozen=True)
class Snapshot:
    """The live part at one moment.

    Attributes:
        waiting: all is sent, and the second model is still to come.
    """

    elapsed_s: float
    produced: int
    folded: int
    wanted: int | None
    events_per_s: float
    lag: int
    freshness: Freshness
    hits: HitRate
    model_versions: tuple[int, ...]
    trainer: str
    waiting: bool
    card: Card | None


class View(Protocol):
    def show(self, now: Snapshot) -> None:
        """Shows the newest snapshot; called a few times a second."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveView:
    """Household on the left, numbers on the right."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def show(self, now: Snapshot) -> None:
        self._live.update(render(now, self._console.width), refresh=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)


class PlainView:
    """A line every five seconds, the household every third time, and a line for every new model."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._due = time.monotonic()
        self._lines = 0
        self._versions: tuple[int, ...] | None = None

    def show(self, now: Snapshot) -> None:
        if self._versions is not None and now.model_versions != self._versions:
            self._say(f"model version {now.model_versions[-1]} serves now")
        self._versions = now.model_versions
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _LINE_S
        self._say(
            f"{now.elapsed_s:6.0f} s  {now.produced:,} sent, {now.folded:,} folded, {now.events_per_s:.0f}/s"
            f", lag {now.lag} | fresh {_ms(now.freshness.p50_ms)} p50, {_ms(now.freshness.p99_ms)} p99"
            f" | hit@20 ousel {now.hits.ousel:.3f}, popularity {now.hits.popularity:.3f} on {now.hits.events:,}"
            f" | model {_versions(now)}"
        )
        if now.waiting:
            self._say(f"          all is sent; a second model is waited for, the trainer says: {now.trainer}")
        if self._lines % _CARD_EVERY == 0 and now.card:
            self._say(f"          household {now.card.household}, {now.card.state}")
            self._say(f"          bought: {'; '.join(now.card.basket[-5:]) or 'nothing yet'}")
            self._say(f"          next:   {'; '.join(title for title, _ in now.card.following[:5]) or 'no list yet'}")
        self._lines += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def render(now: Snapshot, width: int) -> RenderableType:
    """The whole view: side by side, or one below the other in a narrow terminal."""
    household, numbers = _household(now.card), _numbers(now)
    if width < _SIDE_BY_SIDE:
        return Group(household, numbers)
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=2)
    grid.add_column(width=_NUMBERS_WIDTH)
    grid.add_row(household, numbers)
    return grid


def _household(card: Card | None) -> Panel:
    if card is None:
        return Panel("nobody who is followed is at a till", title="household")
    body = Table.grid(expand=True, padding=(0, 1))
    body.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    body.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    body.add_row(Text("in the basket", style="bold"), Text(f"next ({card.origin})", style="bold"))
    bought = card.basket[-_BASKET_ROWS:]
    for row in range(_BASKET_ROWS):
        left = Text(bought[row]) if row < len(bought) else Text("")
        right = Text("")
        if row < len(card.following):
            title, new = card.following[row]
            right = Text(f"+ {title}" if new else f"  {title}", style="green" if new else "")
        body.add_row(left, right)
    return Panel(body, title=f"household {card.household}", subtitle=card.state)


def _numbers(now: Snapshot) -> Panel:
    body = Table.grid(expand=True, padding=(0, 2))
    body.add_column(style="dim", width=11, no_wrap=True)
    body.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    of = f" of {now.wanted:,}" if now.wanted else ""
    body.add_row("events/s", f"{now.events_per_s:.0f}")
    body.add_row("sent", f"{now.produced:,}{of}{', waiting for a model' if now.waiting else ''}")
    body.add_row("folded", f"{now.folded:,} (lag {now.lag:,})")
    body.add_row("freshness", f"{_ms(now.freshness.p50_ms)} p50, {_ms(now.freshness.p99_ms)} p99")
    body.add_row("hit rate@20", Text(f"{now.hits.ousel:.3f} ousel", style="bold green"))
    body.add_row("", f"{now.hits.popularity:.3f} popularity")
    body.add_row("", f"on {now.hits.events:,} purchases")
    body.add_row("model", _versions(now))
    body.add_row("trainer", Text(now.trainer))
    return Panel(body, title=f"live for {now.elapsed_s:.0f} s", subtitle="Ctrl-C ends")


def _versions(now: Snapshot) -> str:
    return " > ".join(map(str, now.model_versions)) or "none yet"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
