"""Elementary functions are those of the C library, as near as float32 tells."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.numeric.elementary import exp, gelu, log, log1p

_ULP = 2.0**-23


def floats(low: float, high: float) -> st.SearchStrategy[np.float32]:
    return st.floats(low, high, width=32).map(np.float32)


@given(floats(-87.0, 88.0))
def test_exp(x: np.float32) -> None:
    assert math.isclose(exp(x), math.exp(x), rel_tol=2 * _ULP)


def test_exp_of_what_lies_outside_is_that_of_the_end() -> None:
    assert exp(np.float32(-1e9)) == exp(np.float32(-87.0)) < 1e-37
    assert exp(np.float32(1e9)) == exp(np.float32(88.0)) > 1e38
    assert exp(np.float32(-np.inf)) < 1e-37


@given(floats(float(np.float32(1e-30)), float(np.float32(1e30))))
def test_log(x: np.float32) -> None:
    assert math.isclose(log(x), math.log(x), rel_tol=2 * _ULP, abs_tol=_ULP)


@given(floats(0.0, float(np.float32(1e30))))
def test_log1p(x: np.float32) -> None:
    assert math.isclose(log1p(x), math.log1p(x), rel_tol=2 * _ULP, abs_tol=_ULP)


@given(floats(-1e6, 1e6))
def test_gelu(x: np.float32) -> None:
    expected = 0.5 * float(x) * math.erfc(-float(x) * math.sqrt(0.5))
    assert math.isclose(gelu(x), expected, rel_tol=2 * _ULP, abs_tol=1e-6)


def test_the_ends_are_exact() -> None:
    zero = np.float32(0.0)
    assert (exp(zero), log1p(zero), gelu(zero)) == (1.0, 0.0, 0.0)
