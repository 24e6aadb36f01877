"""Log lines that cannot flood the log: one at once, then at most one per kind and interval, which counts the rest."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

INTERVAL_S = 10.0
_MAX_KINDS = 1000
_MAX_CHARS = 1000

Fields = Mapping[str, object]
Schedule = Callable[[float, Callable[[], None]], object]


class _Occurrence(NamedTuple):
    """What a call of a limited log brings."""

    level: int
    text: str
    occurrences: int
    fields: Fields | None


class _Line(NamedTuple):
    """What is written."""

    level: int
    text: str
    fields: Fields | None


@dataclass
class _Kind:
    """One kind of line: when it was written last, and the newest one that was held back since."""

    written_s: float
    level: int = 0
    newest: str = ""
    fields: Fields | None = None  # of the newest one
    held_back: int = 0  # occurrences since the last line

    def hold(self, new: _Occurrence) -> None:
        """Counts it, until the next line."""
        self.level, self.newest, self.fields = new.level, new.text, new.fields
        self.held_back += new.occurrences


class LimitedLog:
    """Writes lines about things that may happen at any rate, such as a record that cannot be used.

    The first line of a kind is written at once. Later ones are held back until `interval_s` after the last line;
    then the newest is written, with the number of occurrences that it stands for. No occurrence goes unsaid: what is
    held back is written by a timer, or when the process ends, even where no further one comes.

    Any thread may call it. Beyond 1,000 kinds the one that was written longest ago is written and forgotten, so that
    kinds may be made of names that others choose. A line is cut at 1,000 characters.

    Args:
        log: the logger of the module that writes.
        schedule: runs a function once, so many seconds from now; a daemon thread by default.
    """

    def __init__(
        self,
        log: logging.Logger,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        schedule: Schedule | None = None,
    ) -> None:
        self._log = log
        self._interval_s = interval_s
        self._clock = clock
        self._schedule: Schedule = schedule or _in_daemon_thread
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}  # the one written longest ago comes first
        _all.add(self)

    def warning(self, kind: str, message: str, *args: object, count: int = 1, extra: Fields | None = None) -> None:
        """Writes or holds back a warning.

        Args:
            count: how many occurrences this call stands for.
            extra: what the line is about, see `log_fields`; a line has that of the newest occurrence.
        """
        self._write(kind, _Occurrence(logging.WARNING, cut(message % args if args else message), count, extra))

    def error(self, kind: str, message: str, *args: object, count: int = 1, extra: Fields | None = None) -> None:
        """`warning`, as an error."""
        self._write(kind, _Occurrence(logging.ERROR, cut(message % args if args else message), count, extra))

    def flush(self) -> None:
        """Writes everything that is held back."""
        with self._lock:
            lines = [self._line(kind) for kind in self._kinds.values() if kind.held_back]
        self._emit(lines)

    def _write(self, name: str, new: _Occurrence) -> None:
        lines: list[_Line] = []
        wait_s = None
        with self._lock:
            kind = self._kinds.get(name)
            now_s = self._clock()
            if kind is None or (not kind.held_back and now_s - kind.written_s >= self._interval_s):
                self._kinds.pop(name, None)
                self._kinds[name] = kind = _Kind(now_s)
                kind.hold(new)
                lines.append(self._line(kind, first=True))
                while len(self._kinds) > _MAX_KINDS:
                    dropped = self._kinds.pop(next(iter(self._kinds)))
                    if dropped.held_back:
                        lines.append(self._line(dropped))
            else:
                if not kind.held_back:
                    wait_s = max(0.0, kind.written_s + self._interval_s - now_s)
                kind.hold(new)
        self._emit(lines)
        if wait_s is not None:
            self._schedule(wait_s, lambda: self._due(name))

    def _due(self, name: str) -> None:
        with self._lock:
            kind = self._kinds.get(name)
            if kind is None or not kind.held_back:
                return  # It was flushed, or made way for another kind.
            line = self._line(kind)
            self._kinds[name] = self._kinds.pop(name)
        self._emit([line])

    def _line(self, kind: _Kind, *, first: bool = False) -> _Line:
        """The line that stands for everything that is held back. The caller holds the lock."""
        now_s = self._clock()
        if kind.held_back == 1:
            text = kind.newest
        elif first:
            text = f"{kind.newest} ({kind.held_back} of these at once)"
        else:
            text = f"{kind.newest} ({kind.held_back} of these in the last {now_s - kind.written_s:.0f} s)"
        kind.written_s, kind.held_back = now_s, 0
        return _Line(kind.level, text, kind.fields)

    def _emit(self, lines: list[_Line]) -> None:
        for line in lines:
            self._log.log(line.level, "%s", line.text, extra=line.fields)


def cut(text: str, chars: int = _MAX_CHARS) -> str:
    """The text, or its beginning with the number of characters that are left out."""
    return text if len(text) <= chars else f"{text[:chars]}... ({len(text) - chars} more characters)"


def _in_daemon_thread(delay_s: float, run: Callable[[], None]) -> None:
    timer = threading.Timer(delay_s, run)
    timer.daemon = True
    timer.start()


_all: weakref.WeakSet[LimitedLog] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    for limited in list(_all):
        limited.flush()
