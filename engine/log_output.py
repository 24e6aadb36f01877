"""Where log lines go and how they look: text for people, in one line each, or JSON for collectors; both to stderr."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.logging import RichHandler

from engine.log_fields import fields_of, note_request

_log = logging.getLogger(__name__)


def log_to_stderr(level: str, form: Literal["text", "json"] = "text") -> None:
    """Sets the process up to log from `level` on ("debug", "info", "warning", "error").

    Python's warnings, and an error that nobody has caught, become lines of the log, too.
    """
    handler: logging.Handler
    if form == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(_Json())
    elif sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.addFilter(_in_one_line)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Text())
        handler.addFilter(_in_one_line)
    handler.addFilter(note_request)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # kafka-python logs several errors a second while a broker is away; the source says so once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


def log_form() -> Literal["text", "json"]:
    """The form in which this process logs."""
    return "json" if any(isinstance(handler.formatter, _Json) for handler in logging.getLogger().handlers) else "text"


def one_line(text: str) -> str:
    """The text with its control characters escaped: what others have written can neither forge lines nor colours."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _in_one_line(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = one_line(message), ()
    return True


def _time(record: logging.LogRecord) -> str:
    """When it was logged, as RFC 3339 has it, by this machine's time zone."""
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


class _Text(logging.Formatter):
    """The time, the level, the logger and the message; a traceback follows in lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        request = getattr(record, "request_id", None)
        return line if request is None else f"{line} [request {request}]"


class _Json(logging.Formatter):
    """One object: time, level, logger, message, the fields that are known, and a traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        # Escaped, so that an unpaired surrogate of somebody's text can be written, too.
        return json.dumps(line, default=str)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _log.critical("the program ended by an error that nobody expected: %r", error, exc_info=(kind, error, trace))
