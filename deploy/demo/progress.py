"""The phases before the demo is live: a bar each in a terminal, plain lines elsewhere; timed in both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_LINE_S = 5.0


class Phase:
    """One phase at work. `update` is cheap enough to call often."""

    def __init__(self, console: Console, title: str, progress: Progress | None) -> None:
        self._console = console
        self._title = title
        self._progress = progress
        self._task = progress.add_task(title, total=None, note="") if progress else None
        self._started = self._said = time.monotonic()
        self._note = ""

    def update(self, note: str, done: int | None = None, total: int | None = None) -> None:
        """Shows how far it is: a note, and a count where there is one."""
        self._note = f"{done:,} of {total:,}{note and ', '}{note}" if done is not None and total is not None else note
        if self._progress and self._task is not None:
            self._progress.update(self._task, note=self._note, completed=done, total=total)
        elif time.monotonic() - self._said >= _LINE_S:
            self._said = time.monotonic()
            self._console.print(
                f"  {self._title}{self._after()} ({self.elapsed_s:.0f} s)", markup=False, soft_wrap=True
            )

    def _after(self) -> str:
        return f": {self._note}" if self._note else ""

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def end(self) -> None:
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=1, total=1)
        else:
            self._console.print(
                f"  {self._title}{self._after()}, done in {self.elapsed_s:.1f} s", markup=False, soft_wrap=True
            )


class Phases:
    """Attributes: seconds, how long each phase took, by key."""

    def __init__(self, console: Console, live: bool) -> None:
        self._console = console
        self._live = live
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, key: str, title: str) -> Iterator[Phase]:
        """Times what happens inside."""
        if not self._live:
            self._console.print(f"- {title}", markup=False)
            phase = Phase(self._console, title, None)
            yield phase
        else:
            columns = (
                SpinnerColumn(finished_text="[green]✓[/]"),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", markup=False, style="dim"),
            )
            with Progress(*columns, console=self._console) as progress:
                phase = Phase(self._console, title, progress)
                yield phase
                phase.end()
                self.seconds[key] = round(phase.elapsed_s, 1)
            return
        phase.end()
        self.seconds[key] = round(phase.elapsed_s, 1)
