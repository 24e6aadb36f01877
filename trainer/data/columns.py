"""Columns of any type that Parquet and Arrow have, as the text, the numbers or the lists that they mean.

A type that could mean more than one thing is refused: a whole number that became a float has lost its digits beyond
2^53, and nobody can tell what `true` is the id of.

Shapes: R rows of a column.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

TEXT = "text, whole numbers or decimals without a fraction"
NUMBERS = "whole numbers, floats, decimals or text"
LISTS = "text with | between the categories, or a list of text"


class ColumnError(ValueError):
    """A column holds nothing that can be meant; the message begins with "must be"."""


def plain(column: pa.Array) -> pa.Array:
    """The same values without the encodings that only save space: dictionaries, views and 64-bit lengths of text."""
    if kinds.is_dictionary(column.type):
        return plain(column.dictionary_decode())
    if kinds.is_run_end_encoded(column.type):
        return plain(pc.run_end_decode(column))
    if isinstance(column.type, pa.BaseExtensionType):
        return column if isinstance(column.type, pa.UuidType) else plain(column.storage)
    if kinds.is_large_string(column.type) or kinds.is_string_view(column.type):
        return column.cast(pa.string())
    if kinds.is_large_binary(column.type) or kinds.is_binary_view(column.type):
        return column.cast(pa.binary())
    return column


def as_text(column: pa.Array) -> pa.Array:
    """[R] strings, null where there is no value.

    Raises:
        ColumnError: the type is none of `TEXT`, or a value is not UTF-8 or has a fraction.
    """
    kind = column.type
    if kinds.is_null(kind) or kinds.is_integer(kind) or kinds.is_string(kind):
        return column.cast(pa.string())
    if isinstance(kind, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    if kinds.is_decimal(kind) and kind.scale >= 0:
        try:
            return column.cast(pa.decimal256(76, 0)).cast(pa.string())
        except pa.ArrowInvalid:
            raise ColumnError(f"must be {TEXT}, got a column of {kind} with fractions") from None
    if kinds.is_binary(kind) or kinds.is_fixed_size_binary(kind):
        try:
            return column.cast(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            raise ColumnError(f"must be {TEXT}, got a column of {kind} that is not text in UTF-8") from None
    hint = ""
    if kinds.is_floating(kind):
        hint = ": write whole numbers or text (pandas makes floats where a value is missing; its type Int64 does not)"
    raise ColumnError(f"must be {TEXT}, got a column of {kind}{hint}")


def as_numbers(column: pa.Array) -> pa.Array | None:
    """[R] float64, null where there is no value; None where the column is not one of numbers."""
    kind = column.type
    if kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_null(kind):
        return column.cast(pa.float64(), safe=False)
    return None


def as_lists(column: pa.Array) -> list[list[str]] | None:
    """[R] the texts of each list, empty where there is none; None where the column is not one of lists.

    Raises:
        ColumnError: the lists hold something else than `TEXT`.
    """
    kind: Any = column.type
    if not (
        kinds.is_list(kind)
        or kinds.is_large_list(kind)
        or kinds.is_fixed_size_list(kind)
        or kinds.is_list_view(kind)
        or kinds.is_large_list_view(kind)
    ):
        return None
    try:
        texts = as_text(plain(column.flatten())).to_pylist()
    except ColumnError:
        raise ColumnError(f"must be {LISTS}, got a column of {kind}") from None
    lists: list[list[str]] = []
    begin = 0
    for length in pc.list_value_length(column).fill_null(0).to_pylist():
        lists.append([text for text in texts[begin : begin + length] if text is not None])
        begin += length
    return lists
