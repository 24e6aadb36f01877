"""What makes lists before the first model follows what recent users did."""

from __future__ import annotations

import pytest

from engine.config import CanaryConfig
from engine.favourite import Favourite
from engine.ranking.query import Origin, Query
from engine.ranking.scorers import SCORERS, WITHOUT_MODEL
from engine.state.state import State
from tests.engine.logs import HOUR_MS, decoded
from tests.engine.test_canary import CONFIG, DEADLINE_S, ITEMS, NOW_MS, USERS
from tests.engine.test_pipeline import Engine
from tests.engine.worlds import record

Row = tuple[str, str, str, int, int]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def habits() -> list[Row]:
    """Nobody shares an item with anybody, and everybody has the same one of forty again and again."""
    return [
        (f"u{user:02}", "", f"own{user:02}", 7, NOW_MS + time * HOUR_MS) for time in range(4) for user in range(USERS)
    ]


def fashion() -> list[Row]:
    """Everybody had an item of their own, and has what is new since; its item leads to nothing that others had."""
    first = [(f"u{user:02}", "", f"own{user:02}", 7, NOW_MS) for user in range(USERS)]
    return [*first, *((f"u{user:02}", "", ITEMS[user % 3], 7, NOW_MS + 900 * HOUR_MS) for user in range(USERS))]


def settled(favourite: Favourite, state: State) -> str:
    for _ in range(10 * USERS):
        favourite.step(state)
    return favourite.name


@pytest.mark.parametrize("log", [habits(), fashion()])
def test_it_is_the_scorer_that_hits_the_newest_events_of_recent_users(log: list[Row]) -> None:
    state = State(CONFIG.state, CONFIG.events)
    state.fold(decoded(log))
    config = CONFIG.model_copy(update={"canary": CanaryConfig(users=40)})
    favourite = Favourite(config, Clock())
    assert favourite.name == WITHOUT_MODEL == "covisitation"
    assert settled(favourite, state) in SCORERS


def test_what_the_users_have_again_and_again_makes_frequency_the_favourite_and_it_is_asked_again_later() -> None:
    state, clock = State(CONFIG.state, CONFIG.events), Clock()
    # More items than a list has places are popular, so that only one's own past tells.
    crowd = [(f"v{at}", "", f"pop{at % 30}", 7, NOW_MS + at) for at in range(60)]
    state.fold(decoded([*crowd, *((who, s, item, k, at + HOUR_MS) for who, s, item, k, at in habits())]))
    favourite = Favourite(CONFIG.model_copy(update={"canary": CanaryConfig(users=40)}), clock)
    favourite.name = "popularity"
    assert settled(favourite, state) == "frequency"
    favourite.name = "popularity"
    assert settled(favourite, state) == "popularity"  # asked not long ago
    clock.now_s = 601.0
    assert settled(favourite, state) == "frequency"


def test_few_hits_change_nothing() -> None:
    state = State(CONFIG.state, CONFIG.events)
    state.fold(decoded(habits()))
    favourite = Favourite(CONFIG.model_copy(update={"canary": CanaryConfig(users=10)}), Clock())
    favourite.name = "popularity"
    assert settled(favourite, state) == "popularity"


def test_an_engine_without_a_model_says_by_which_scorer_a_list_is_made() -> None:
    with Engine(config=CONFIG) as engine:
        engine.source.append([record(CONFIG, at, user, item) for at, (user, _, item, *_) in enumerate(habits())])
        engine.pipeline._publisher.favourite.name = "frequency"
        ranking = engine.pipeline.ask(Query("u01", "", 5)).result(DEADLINE_S)
        assert ranking.origin == Origin.FREQUENCY and ranking.items[0].item_id == "own01"
