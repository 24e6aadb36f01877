"""Law 5: every response is computed from one generation."""

from __future__ import annotations

from functools import partial
from itertools import groupby

import pytest

from engine.model.weights import encode_weights
from engine.ranking.query import Origin, Query
from engine.ranking.recommender import recommend
from tests.engine.models import small_weights
from tests.engine.test_pipeline import CONFIG, DEADLINE_S, Engine, events
from tests.engine.worlds import ITEMS, small_generation

QUERY = Query("u1", "", 10)


def test_lists_asked_for_during_swaps_and_roll_backs_are_each_that_of_one_version():
    with Engine() as engine:
        engine.source.append(events(40))
        seen = []
        for version in range(1, 6):
            changes = [
                partial(engine.pipeline.install, encode_weights(small_weights(ITEMS, seed=version)), version, {})
            ]
            changes += [engine.pipeline.roll_back] if version in (2, 4) else []
            for change in changes:
                changed = change()
                while not changed.done():
                    seen.append(engine.pipeline.ask(QUERY).result(DEADLINE_S))
                changed.result(DEADLINE_S)
                seen.append(engine.pipeline.ask(QUERY).result(DEADLINE_S))
        state = engine.pipeline.state
    versions = [version for version, _ in groupby(ranking.model_version for ranking in seen)]
    assert [version for version in versions if version] == [1, 2, 1, 3, 4, 3, 5]
    for version in range(1, 6):
        alone = small_generation(CONFIG, state, version, seed=version)
        (want,) = recommend([QUERY], state, alone, CONFIG.ranking)
        for ranking in (ranking for ranking in seen if ranking.model_version == version):
            assert ranking.origin == Origin.MODEL
            assert [item.item_id for item in ranking.items] == [item.item_id for item in want.items]
            assert [item.score for item in ranking.items] == pytest.approx(
                [item.score for item in want.items], abs=1e-4
            )
