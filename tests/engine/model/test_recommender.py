"""What a shape allows, and what its switches change."""

from __future__ import annotations

import pytest

from engine.model.recommender import ModelShape

PLAIN = {"vocabulary": 3, "content_dim": 4, "kinds": 2, "dim": 8, "heads": 2}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"heads": 3}, "dim must be a multiple of heads, got 8 and 3"),
        ({"local_heads": 3}, r"local_heads must be in 0..2 \(heads\), got 3"),
        ({"local_window": 0}, "local_window"),
        ({"aggregation": "max"}, "'attention', 'mean' or 'sum'"),
    ],
)
def test_a_shape_that_can_not_be_built_is_refused_with_the_reason(change: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ModelShape.model_validate(PLAIN | change)
