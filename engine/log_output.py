"""Where log lines go: stderr, in colour on a terminal, plain with a time otherwise."""

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
    logging.basicConfig(level=level.upper(), format=layout, handlers=[handler])
    # kafka-python logs several errors a second while a broker is away; the source says so once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
