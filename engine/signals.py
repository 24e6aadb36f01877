"""SIGINT and SIGTERM as an event that long work asks for between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The event was set while something was under way; what it had done so far is not used."""


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that either signal sets; the handlers before come back at the end."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
