"""SIGINT and SIGTERM as an event that long work asks for between two steps; and SIGINT while modules are imported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
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


def interrupted_at_once() -> Callable[[], None]:
    """From here on Ctrl-C ends the process at once, until what is returned is called.

    The imports of a program take seconds, in which Python's own handler would end it with a traceback out of somebody
    else's module. Where another handler is at work, or SIGINT is ignored, or this is no main thread, nothing changes.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return lambda: None
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def end() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return end
