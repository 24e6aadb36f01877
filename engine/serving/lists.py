"""Lists as the protocol has them, written as bytes.

A list is the same few fields again and again. Setting them one by one in messages, only to have these written, takes
three times as long as joining what they come to, most of which an item's record says alone. So messages are skipped,
and a handler hands bytes on (`passes_bytes`). The numbers are those of `recommender_service.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from ousel.v1 import event_pb2, recommender_service_pb2

from engine.ranking.query import Cause, Position, Ranking, Source

_NUMBER, _BYTES, _FLOAT = 0, 2, 5  # ways in which the wire has a field
_ZERO = b"\0\0\0\0"  # a score that is not written
# Of so many items the part that their records say is kept, unless it is long: 65,536 long ones would take 300 MB.
KEPT_ITEMS, MOST_KEPT_CHARS = 65_536, 256

_float = struct.Struct("<f").pack


def response_bytes(ranking: Ranking) -> bytes:
    """A RecommendResponse."""
    return _field(1, list_bytes(ranking))


def batch_bytes(answers: Sequence[Ranking | recommender_service_pb2.Refusal]) -> bytes:
    """A RecommendBatchResponse."""
    return b"".join(
        _field(1, _field(1, list_bytes(one)) if isinstance(one, Ranking) else _field(2, one.SerializeToString()))
        for one in answers
    )


def update_bytes(ranking: Ranking, cause: Cause) -> bytes:
    """A StreamRecommendationsResponse."""
    return _field(1, list_bytes(ranking)) + _number(2, cause)


def list_bytes(ranking: Ranking) -> bytes:
    """A RecommendationList."""
    parts = []
    for item_id, title, score, sources in ranking.items:
        short = len(item_id) + len(title) <= MOST_KEPT_CHARS
        before, after = (_kept_around if short else _around_score)(item_id, title, sources)
        written = _float(score)
        if written == _ZERO:
            item = _text(1, item_id) + _text(2, title) + after
            parts.append(_ITEM + _length(len(item)) + item)
        else:
            parts += before, written, after
    parts.append(_number(2, ranking.origin) + _number(3, ranking.known) + _number(4, ranking.model_version))
    parts.append(_reflects(ranking.reflects))
    return b"".join(parts)


def passes_bytes(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Makes a serializer leave alone what is bytes already."""
    return lambda message: message if type(message) is bytes else serialize(message)


def _around_score(item_id: str, title: str, sources: tuple[Source, ...]) -> tuple[bytes, bytes]:
    """What comes before and after the four bytes of a Recommendation's score, its length first of all."""
    head, tail = _text(1, item_id) + _text(2, title) + _SCORE, _field(4, bytes(sources)) if sources else b""
    return _ITEM + _length(len(head) + len(_ZERO) + len(tail)) + head, tail


_kept_around = lru_cache(KEPT_ITEMS)(_around_score)


@lru_cache(16)
def _reflects(reflects: tuple[Position, ...]) -> bytes:
    """The same for all lists that are made together."""
    messages = (event_pb2.LogPosition(topic=at.topic, partition=at.partition, offset=at.offset) for at in reflects)
    return b"".join(_field(5, message.SerializeToString()) for message in messages)


def _key(field: int, way: int) -> bytes:
    return bytes([field << 3 | way])


def _length(number: int) -> bytes:
    """Seven bits a byte, the lowest first, a set eighth bit where there are more."""
    if number < 128:
        return bytes([number])
    return bytes([number & 127 | 128]) + _length(number >> 7)


def _field(field: int, data: bytes) -> bytes:
    return _key(field, _BYTES) + _length(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode()) if text else b""


def _number(field: int, number: int) -> bytes:
    return _key(field, _NUMBER) + _length(number) if number else b""


_ITEM, _SCORE = _key(1, _BYTES), _key(3, _FLOAT)
