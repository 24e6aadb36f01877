"""Begins a command's log: from here on lines have their form, and the first says which variables set nothing."""

from __future__ import annotations

import logging

from engine.config import Settings, ignored_variables
from engine.log_output import log_to_stderr

_log = logging.getLogger(__name__)


def start_log(settings: Settings, level: str | None = None) -> None:
    """Logs from the level of the settings on, or from another one."""
    log_to_stderr(level or settings.log.level, settings.log.format)
    ignored = ignored_variables(type(settings))
    if ignored is not None:
        _log.warning("%s", ignored)
