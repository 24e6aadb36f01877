"""Reads a safetensors file that is held in memory, without a copy of it.

The library's own `load` copies every tensor while it keeps the interpreter: for 400 MB no other thread ran for a
second, and an engine answered nobody meanwhile. The layout is 8 bytes with the length of the header, the header as
JSON with the type, the shape and the place of each tensor, and the tensors' bytes one after the other.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

MAX_HEADER_BYTES = 2**20  # JSON keeps the interpreter while it is read; a model has some 50 tensors.
_LENGTH_BYTES = 8
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorFileError(ValueError):
    """The bytes are no safetensors file, or one that is damaged."""


def read_tensors(data: bytearray) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, which share the memory of `data`, and the file's own metadata.

    Raises:
        TensorFileError: says what is wrong.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if len(data) < _LENGTH_BYTES or begin > len(data):
        raise TensorFileError(f"its header is said to have {length} bytes, and the file has {len(data)}")
    if length > MAX_HEADER_BYTES:
        raise TensorFileError(f"its header must have at most {MAX_HEADER_BYTES} bytes, got {length}")
    try:
        header = json.loads(data[_LENGTH_BYTES:begin])
        metadata = dict(header.pop("__metadata__", {}))
        places = {name: _place(name, entry, len(data) - begin) for name, entry in header.items()}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise TensorFileError(f"its header can't be read: {error}") from None
    _check_whole(places, len(data) - begin)
    tensors = {}
    for name, (kind, shape, first, last) in places.items():
        if first == last:
            tensors[name] = torch.empty(shape, dtype=kind)
            continue
        # By way of bytes: a tensor may begin where its type does not allow it to.
        raw = torch.frombuffer(data, dtype=torch.uint8, offset=begin + first, count=last - first)
        if (begin + first) % kind.itemsize:
            raw = raw.clone()
        tensors[name] = raw.view(kind).view(shape)
    return tensors, metadata


def _place(name: str, entry: dict[str, Any], size: int) -> tuple[torch.dtype, list[int], int, int]:
    """The type, the shape, and where the bytes of a tensor begin and end."""
    kind, shape, (first, last) = _TYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
    if kind is None:
        raise ValueError(f"tensor {name} has type {entry['dtype']!r}")
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise ValueError(f"tensor {name} must have whole numbers as shape and place, got {shape}, {first} and {last}")
    if not first <= last <= size or last - first != math.prod(shape) * kind.itemsize:
        raise ValueError(f"tensor {name} of shape {shape} can't lie at {first} to {last} of {size} bytes")
    return kind, shape, first, last


def _check_whole(places: dict[str, tuple[torch.dtype, list[int], int, int]], size: int) -> None:
    """Every byte belongs to one tensor: neither are there holes, nor do two share a byte."""
    at = 0
    for first, last in sorted((first, last) for _, _, first, last in places.values()):
        if first != at:
            raise TensorFileError(
                f"its tensors must lie one after the other, got one at {first} where one ends at {at}"
            )
        at = last
    if at != size:
        raise TensorFileError(f"its tensors must fill it, got {at} of {size} bytes")
