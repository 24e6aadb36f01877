"""The name of the request that a call answers, for lines of the log: its client's, or one made here."""

from __future__ import annotations

import re
import uuid
from typing import Any

from engine.log_fields import current_request

HEADER = "x-request-id"

_MAX_CHARS = 64
_OTHER = re.compile(r"[^A-Za-z0-9._:/=+@-]")


class RequestName:
    """Becomes a text when somebody asks for it: nearly every call ends without a line in the log.

    Args:
        given: the client's own name; None has one made.
    """

    def __init__(self, given: str | None) -> None:
        self._name = given

    def __str__(self) -> str:
        if self._name is None:
            self._name = uuid.uuid4().hex
        return self._name


def name_request(context: Any) -> RequestName:
    """Gives this task's lines of the log the name of its request, also those of tasks and threads that it starts.

    The metadata are read now: once the call is over, gRPC has freed them, and a thread of the call may log later.
    """
    name = RequestName(_given(context))
    current_request.set(name)
    return name


def _given(context: Any) -> str | None:
    """The client's own name for its request: cut, and without characters that logs and dashboards would trip over."""
    for key, value in context.invocation_metadata() or ():
        if key == HEADER and isinstance(value, str):
            return _OTHER.sub("_", value[:_MAX_CHARS]) or None
    return None
