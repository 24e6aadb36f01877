"""How far reading and training are: a bar on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_LINE_EVERY_S = 5.0
_log = logging.getLogger(__name__)


class Progress:
    """One training's progress; a context manager.

    Args:
        meanwhile: called at each update, for what can't wait until a training of hours ends.
    """

    def __init__(self, console: Console | None = None, meanwhile: Callable[[], None] = lambda: None) -> None:
        self._console = console or Console(stderr=True)
        self._meanwhile = meanwhile
        self._bar: Bar | None = None
        self._stage = ""
        self._line_s = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
            )
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, stage: str, done: float, note: str = "") -> None:
        """`done` of `stage`, from 0 to 1."""
        self._meanwhile()
        new = stage != self._stage
        self._stage = stage
        if self._bar is not None:
            if new:
                self._bar.add_task(stage, total=1.0, note=note)
            self._bar.update(self._bar.task_ids[-1], completed=done, note=note)
        elif new or time.monotonic() - self._line_s >= _LINE_EVERY_S:
            self._line_s = time.monotonic()
            _log.info("training %s: %3.0f%% %s", stage, 100 * done, note)


class Reading:
    """How much of something long has been read: one line every few seconds, and no more.

    Args:
        what: the subject of each line, such as "reading the log".
        unit: what is counted.
    """

    def __init__(
        self, what: str, unit: str, every_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._unit = unit
        self._every_s = _LINE_EVERY_S if every_s is None else every_s
        self._clock = clock
        self._said_s = clock()

    def update(self, done: int, total: Callable[[], int]) -> None:
        """Says how many are read where a line is due.

        Args:
            total: how many there are; it is asked only for a line.
        """
        if self._clock() - self._said_s < self._every_s:
            return
        self._said_s = self._clock()
        _log.info("%s: %s of %s %s", self._what, f"{done:,}", f"{total():,}", self._unit)
