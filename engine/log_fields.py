"""What a line of the log is about, as fields that a collector of JSON lines can search by.

A call site passes fields as `extra`; the request is known to every line that is logged while a call is handled.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol

# The names of all fields, in the order in which a line has them.
FIELDS = ("topic", "partition", "offset", "model_version", "request_id")


class _Named(Protocol):
    def __str__(self) -> str: ...


# Something whose text is the name of the request that this task or thread answers; made when it is first asked for.
current_request: ContextVar[_Named | None] = ContextVar("current_request", default=None)


def at(topic: str, partition: int | None = None, offset: int | None = None) -> dict[str, object]:
    """The fields of a line about a place in the log."""
    fields: dict[str, object] = {"topic": topic}
    if partition is not None:
        fields["partition"] = partition
    if offset is not None:
        fields["offset"] = offset
    return fields


def of_model(version: int) -> dict[str, object]:
    """The fields of a line about a model."""
    return {"model_version": version}


def note_request(record: logging.LogRecord) -> bool:
    """A filter of a handler that gives each line the name of the request that is answered; it drops no line."""
    request = current_request.get()
    if request is not None and not hasattr(record, "request_id"):
        record.request_id = str(request)
    return True


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """The fields that a line has."""
    return {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}
