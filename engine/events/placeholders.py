"""Ids that name nobody: a broken front end sends the text "null" or "undefined" for everybody.

Such an id would make one person of strangers: one history for all of them, exported and forgotten together. So an
event of one is refused (`events.placeholder_ids`). An event id of this kind only says that there is none.

Shapes: N records in a batch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.config import EventsConfig
from engine.events.problem import Problem

_SPACE = 0x20
_CHARS = 256
_PLACES = 4


def is_placeholder(value: str, config: EventsConfig) -> bool:
    """Whether an id stands for nobody, whatever the case of its letters and the space around it; "" is no id at all."""
    return value != "" and value.strip().lower() in _known(config.placeholder_ids)


def placeholder_problem(name: str, value: str, config: EventsConfig) -> Problem | None:
    """Why an id is refused: the field, its value and the setting that lists such ids; None where it is not."""
    if not is_placeholder(value, config):
        return None
    return Problem(name, f"must name somebody, got {value!r}, which events.placeholder_ids lists as naming nobody")


def named_event_id(event_id: str, config: EventsConfig) -> str:
    """An event id, or "" where it only says that there is none. Numbers stay: producers do count from 0."""
    return "" if not event_id.isdigit() and is_placeholder(event_id, config) else event_id


class PlaceholderFilter:
    """Tells quickly of many ids which of them may be placeholders: it names all that are, and some others.

    Ids are told apart by their length with each of four characters: with two of them, one in 256 random ids in
    hexadecimal would begin and end like the placeholder of nothing but zeros, and a batch with such an id costs more.
    """

    def __init__(self, config: EventsConfig) -> None:
        self._tables = np.zeros((_PLACES, _CHARS, _CHARS), np.bool_)  # by place, length and character
        for known in _known(config.placeholder_ids):
            if known and known.isascii():  # The rest is found by its space, or is not read at once.
                for table, at in zip(self._tables, _places(np.array(len(known))), strict=True):
                    char = known[int(at)]
                    table[len(known), [ord(char.lower()), ord(char.upper())]] = True

    def suspects(
        self, payload: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """[N] of texts of ASCII that lie at start..end, each shorter than 256; an empty one is no suspect."""
        size = end - start
        found = np.ones(len(size), np.bool_)
        for table, at in zip(self._tables, _places(size), strict=True):
            found &= table[size, payload[start + at]]
        return (size > 0) & (found | (payload[start] == _SPACE) | (payload[end - 1] == _SPACE))


def _places(size: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Where the characters stand that tell ids of these lengths apart."""
    return np.zeros_like(size), size // 4, size // 2, size - 1


@lru_cache(maxsize=16)
def _known(placeholder_ids: tuple[str, ...]) -> frozenset[str]:
    # An id of nothing but space is of the same kind.
    return frozenset((*placeholder_ids, "")) if placeholder_ids else frozenset()
