"""Decoding by numpy and by the protobuf library, and what both have to agree on."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np

from engine.events import codec
from engine.events.batch import Decoded, EventBatch, Record
from engine.events.codec import Decoder


def decoded_both_ways(decoder: Decoder, records: Sequence[Record]) -> Decoded:
    """Decodes however few records at once, and each by itself; returns the one that both are."""
    with patch.object(codec, "_FEW", 0):
        at_once = decoder.decode(records)
    with patch.object(codec, "_FEW", sys.maxsize):
        each = decoder.decode(records)
    for field in dataclasses.fields(EventBatch):
        one, other = getattr(at_once.events, field.name), getattr(each.events, field.name)
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype
            one, other = one.tolist(), other.tolist()
        assert list(one) == list(other), field.name
    assert list(at_once.items) == list(each.items)
    assert list(at_once.rejected) == list(each.rejected)
    assert at_once.positions == each.positions
    return at_once
