"""Where log lines go: stderr, in colour on a terminal, plain with a time otherwise; each in one line."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.logging import RichHandler


def log_to_stderr(level: str) -> None:
    """Sets the process up to log from `level` on ("debug", "info", "warning", "error")."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False)
        layout = "%(message)s"
    else:
        handler = logging.StreamHandler()
        layout = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.addFilter(_in_one_line)
    logging.basicConfig(level=level.upper(), format=layout, handlers=[handler])
    # kafka-python logs several errors a second while a broker is away; the source says so once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


def one_line(text: str) -> str:
    """The text with its control characters escaped: what others have written can neither forge lines nor colours."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _in_one_line(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = one_line(message), ()
    return True
