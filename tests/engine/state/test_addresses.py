from __future__ import annotations

import numpy as np
import pytest

from engine.state.addresses import doubles_at, ints_at, longs_at, pairs_at, place_of


def test_what_lies_at_an_address_is_the_array_and_not_a_copy():
    longs, ints = np.arange(6), np.arange(5, dtype=np.int32)
    pairs, doubles = np.arange(8).reshape(4, 2), np.linspace(0, 1, 6).reshape(2, 3)
    assert longs_at(*place_of(longs)).tolist() == longs.tolist()
    assert ints_at(*place_of(ints)).tolist() == ints.tolist()
    assert pairs_at(*place_of(pairs)).tolist() == pairs.tolist()
    assert doubles_at(*place_of(doubles), 3).tolist() == doubles.tolist()
    longs[2] = 77
    assert longs_at(*place_of(longs))[2] == 77


def test_an_array_without_rows_has_none_at_its_address():
    assert len(ints_at(*place_of(np.zeros(0, np.int32)))) == 0


def test_an_array_with_gaps_is_refused():
    with pytest.raises(ValueError, match="contiguous"):
        place_of(np.arange(6)[::2])
