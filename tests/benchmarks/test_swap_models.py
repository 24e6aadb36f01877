"""The models that `benchmarks.swap` pushes are what it takes them for."""

from __future__ import annotations

import pytest

from benchmarks.swap_models import bad, honest, is_of
from engine.canary import Refused, Trial, check_vectors
from engine.config import Config, StateConfig
from engine.contest import recent_users
from engine.generation import Frozen, build_generation
from engine.model.weights import WeightsError, decode_weights
from engine.ranking.query import Query
from engine.ranking.recommender import recommend
from engine.state.state import State
from tests.engine.logs import HOUR_MS, decoded
from tests.engine.worlds import NOW_MS, catalog

ITEMS = [f"i{at:03}" for at in range(200)]
CONFIG = Config(state=StateConfig(max_users=64, max_items=512))


@pytest.fixture(scope="module")
def state() -> State:
    """Forty users, each of whom has five items, each twice in a row."""
    state = State(CONFIG.state, CONFIG.events)
    own = [
        (f"u{user}", "", ITEMS[5 * user + turn // 2], 0, NOW_MS + turn * HOUR_MS)
        for turn in range(10)
        for user in range(40)
    ]
    state.fold(decoded(own, items=catalog(ITEMS)))
    return state


def test_every_score_is_of_the_models_version_and_of_no_other(state):
    for version in (1, 2, 11):
        generation = build_generation(honest(ITEMS, version), version, {}, Frozen.of(state), CONFIG)
        rankings = recommend([Query(f"u{user}", "", 20) for user in range(40)], state, generation, CONFIG.ranking)
        scores = [item.score for ranking in rankings for item in ranking.items]
        assert len(scores) == 800
        assert all(is_of(version, score) for score in scores)
        assert not any(is_of(other, score) for score in scores for other in range(13) if other != version)


def test_each_bad_model_is_refused_for_what_it_is_and_an_honest_one_is_not(state):
    frozen = Frozen.of(state)
    serving = build_generation(honest(ITEMS, 1), 1, {}, frozen, CONFIG)
    users = recent_users(frozen.users, frozen.graph, 40)

    def judge(weights) -> None:
        generation = build_generation(weights, 2, {}, Frozen.of(state), CONFIG)
        check_vectors(generation, frozen, users)
        trial = Trial(CONFIG, generation, users, serving)
        while not trial.step(state):
            pass
        trial.check()

    judge(honest(ITEMS, 2))
    broken, collapsed, misled = bad(ITEMS, 2).values()
    with pytest.raises(WeightsError, match=r"sequence\.out\.weight holds values that are not finite"):
        decode_weights(broken)
    with pytest.raises(Refused, match="must differ"):
        judge(decode_weights(collapsed))
    with pytest.raises(Refused, match="hit_rate@20"):
        judge(decode_weights(misled))
