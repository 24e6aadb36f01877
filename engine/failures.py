"""Failures that every machine meets, such as a full disk: one line in the log each, and no traceback."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.limited_log import LimitedLog
from engine.log_output import log_form, one_line

_log = logging.getLogger(__name__)
_limited = LimitedLog(_log)


class WrongValue(SystemExit):
    """The end of a command that was given a wrong option or setting: one line, and exit code 2 as for wrong usage.

    Python ends with exit code 1 where SystemExit has a text, and that code is for commands that fail later.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.code = 2


def is_of_the_machine(error: BaseException | None) -> bool:
    """Whether an error comes from the disk, the network or the memory, so that a traceback says nothing more."""
    return isinstance(error, (OSError, MemoryError))


def told(error: BaseException) -> str:
    """An error in one line, with its kind where the text alone says little."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextmanager
def one_line_each(program: str) -> Iterator[None]:
    """Ends a program by one line where a wrong value, a failure of the machine, or Ctrl-C has got through to here."""
    try:
        yield
    except WrongValue as error:
        raise _end(str(error), 2) from None
    except SystemExit as error:
        raise (_end(error.code, 1) if isinstance(error.code, str) else error) from None
    except BrokenPipeError:
        raise SystemExit(1) from None  # Nobody reads the output any more.
    except (OSError, MemoryError) as error:
        raise _end(f"{program}: {told(error)}", 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # as shells have it for SIGINT


def _end(line: str, code: int) -> SystemExit:
    """The end of a program, whose last line stands in the log where that is read as JSON."""
    if log_form() == "json":
        _log.error("%s", line)
        return SystemExit(code)
    if code == 1:
        return SystemExit(line)  # Python prints it, and ends with exit code 1.
    print(one_line(line), file=sys.stderr)
    return SystemExit(code)


def log_thread_failures() -> None:
    """Has the failure that ends a thread logged; Python itself would print a traceback to stderr."""

    def ended(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit:
            return
        name = args.thread.name if args.thread is not None else "unknown"
        error = args.exc_value
        if error is not None and is_of_the_machine(error):
            _log.error("the thread %s ended: %s", name, told(error))
        else:
            _log.error("the thread %s ended: %r", name, error, exc_info=error)

    threading.excepthook = ended


def log_loop_failures(loop: asyncio.AbstractEventLoop, expected: Callable[[BaseException], bool]) -> None:
    """Has the failures logged that nobody in the event loop waits for, such as those of work whose caller has left.

    Args:
        expected: whether a line is enough for an error; asyncio itself prints a traceback for each.
    """

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and expected(error):
            _limited.warning(type(error).__name__, "work that nobody waited for any more has failed: %s", told(error))
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(failed)
