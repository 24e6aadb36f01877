"""What both soaks say of the engine's memory."""

from __future__ import annotations

import pytest

from benchmarks.soak_engine import Sample, least_of_each, slope

PERIOD_S, BEGAN_S = 60.0, 1000.0


def saw(grows_mb_per_min: float, seconds: int) -> list[Sample]:
    """A sample a second of a cache that pushes empty, and that the callers of every third period fill twice as far."""
    samples = []
    for second in range(seconds):
        in_period, fills = second % PERIOD_S, 2.0 if (second // PERIOD_S) % 3 == 0 else 1.0
        cached_mb = 0.0 if in_period < 5 else fills * in_period
        samples.append(Sample(BEGAN_S + second, 800 + grows_mb_per_min * second / 60 + cached_mb, 0.0, 0.0))
    return samples


@pytest.mark.parametrize("grows_mb_per_min", [0.0, 1.5])
def test_caches_that_pushes_empty_are_no_growth_and_hide_none(grows_mb_per_min):
    at_min, least_mb = least_of_each(saw(grows_mb_per_min, 900), BEGAN_S, PERIOD_S)
    assert at_min == [8, 9, 10, 11, 12, 13, 14]
    steep, error = slope(at_min, least_mb)
    assert steep == pytest.approx(grows_mb_per_min) and error == pytest.approx(0.0, abs=1e-6)


def test_a_period_that_the_samples_do_not_fill_is_left_out():
    at_min, _ = least_of_each(saw(0.0, 870), BEGAN_S, PERIOD_S)
    assert at_min == [8, 9, 10, 11, 12, 13]
