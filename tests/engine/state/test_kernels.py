"""What the kernels do is shown where they are used; this is how they are compiled."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from engine.state.kernels import compiled


def test_where_machine_code_cannot_be_kept_it_is_compiled_all_the_same(monkeypatch):
    def njit(signature: str, *, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available for file")
        return real(signature, **options)

    real = numba.njit
    monkeypatch.setattr(numba, "njit", njit)

    @compiled("i8(i8[::1])")
    def first(values: Any) -> Any:
        return values[0]

    assert first(np.array([7, 8])) == 7
