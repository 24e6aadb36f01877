"""Arrays by their address, so that one compiled call reads those of however many slices there are.

Compiled code takes a fixed number of arrays, each with a type of its own. What several slices have goes in as numbers
instead: one row for each slice, with the address and the length of each of its arrays. A table is never moved, so an
address holds as long as somebody keeps the table: whoever makes such rows keeps the slices, too.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from engine.state.kernels import Doubles, Ints, Longs, compiled


def place_of(array: NDArray[Any]) -> tuple[int, int]:
    """Address and length of a contiguous array.

    Raises:
        ValueError: it is not contiguous, so that an address does not tell where its rows lie.
    """
    if not array.flags.c_contiguous:
        raise ValueError("an array must be contiguous to be read by its address")
    return array.ctypes.data, len(array)


@intrinsic
def _pointer(typing_context: Any, address: Any = None) -> Any:
    """An address as compiled code takes it; numba gives the first argument."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@compiled("i8[::1](i8, i8)")
def longs_at(address: int, length: int) -> Longs:
    """[length] int64."""
    return numba.carray(_pointer(address), (length,), np.int64)


@compiled("i8[:,::1](i8, i8)")
def pairs_at(address: int, length: int) -> Longs:
    """[length, 2] int64."""
    return numba.carray(_pointer(address), (length, 2), np.int64)


@compiled("i4[::1](i8, i8)")
def ints_at(address: int, length: int) -> Ints:
    """[length] int32."""
    return numba.carray(_pointer(address), (length,), np.int32)


@compiled("f8[:,::1](i8, i8, i8)")
def doubles_at(address: int, length: int, width: int) -> Doubles:
    """[length, width] float64."""
    return numba.carray(_pointer(address), (length, width), np.float64)
