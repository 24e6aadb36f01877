"""What a new generation must show before it serves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.canary import Refused, Trial, check_vectors
from engine.config import CanaryConfig, Config, RankingConfig, StateConfig
from engine.contest import Contest, K, recent_users, scorer_makers
from engine.features.candidates import NEIGHBOR_BIT
from engine.generation import Frozen, Generation, build_generation
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights, encode_weights
from engine.ranking.asked import Asked
from engine.ranking.lists import make_lists, weigh
from engine.ranking.moment import Moment, Now
from engine.ranking.page import Page
from engine.ranking.query import Query
from engine.ranking.recommender import recommend
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch, decoded
from tests.engine.models import CONTENT_DIM, KINDS
from tests.engine.test_pipeline import DEADLINE_S, Engine
from tests.engine.worlds import record

USERS, ITEMS = 40, [f"i{at:03}" for at in range(120)]
NOW_MS = 1_700_000_000_000
CONFIG = Config(
    state=StateConfig(history=8, neighbors=3, content_dim=CONTENT_DIM, max_users=128, max_items=256),
    canary=CanaryConfig(users=30, min_scorer_share=1),
)


def log() -> list[tuple[str, str, str, int, int]]:
    """Most have one item again and again, which is easy to hit; a quarter of them three, which is harder."""
    return [
        (f"u{user:02}", "", had(user, time), 7, NOW_MS + time * HOUR_MS + user)
        for time in range(6)
        for user in range(USERS)
    ]


def had(user: int, time: int) -> str:
    return ITEMS[3 * user + (time % 3 if user % 4 == 0 else 0)]


def a_state(config: Config = CONFIG) -> State:
    state = State(config.state, config.events)
    state.fold(decoded(log()))
    return state


def good(seed: int = 0) -> Weights:
    """As a model is before its training: a session points at its own items, and the ranker follows it."""
    return ordered(1.0, seed)


def ordered(session: float, seed: int = 0) -> Weights:
    """The ranker follows the session's score alone, or its opposite."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = ModelShape(vocabulary=len(ITEMS), content_dim=CONTENT_DIM, kinds=KINDS, dim=16, blocks=1, window=4)
        model = Recommender(shape)
    with torch.no_grad():
        model.graph.identity.weight.mul_(200)  # the items have no content to tell them apart
        model.ranker.session.fill_(session)
        model.ranker.score.weight.zero_()
    return Weights(model.eval().requires_grad_(False), ITEMS)


def collapsed() -> Weights:
    """Every item has the same embedding."""
    weights = good()
    with torch.no_grad():
        weights.model.graph.content.weight.zero_()
        weights.model.graph.identity.weight.zero_()
        weights.model.graph.mix.weight.zero_()
        weights.model.graph.mix.bias.normal_(generator=torch.Generator().manual_seed(0))
    return weights


def built(weights: Weights, state: State, version: int = 1) -> Generation:
    return build_generation(weights, version, {}, Frozen.of(state), CONFIG)


def tried(new: Generation, serving: Generation | None, state: State, config: Config = CONFIG) -> Trial:
    trial = Trial(config, new, recent(state, config.canary.users), serving)
    while not trial.step(state):
        pass
    return trial


def recent(state: State, count: int) -> torch.Tensor:
    return recent_users(state.users(), state.graph, count)


def test_recent_users_are_those_with_the_newest_events_and_a_past():
    state = a_state()
    state.fold(decoded([("new", "", "i000", 7, NOW_MS + 1000 * HOUR_MS)], len(log())))
    rows = recent(state, 5)
    names = [state.home_of(row)[1].slice.users.id_of(state.home_of(row)[2]) for row in rows.tolist()]
    assert names == [f"u{at}" for at in range(USERS - 1, USERS - 6, -1)]


def test_an_honest_model_passes():
    state = a_state()
    generation, frozen = built(good(), state), Frozen.of(state)
    check_vectors(generation, frozen, recent(state, 30))
    trial = tried(built(good(seed=1), state), generation, state)
    trial.check()
    assert trial.contest.tried == 30


def test_hits_are_those_of_the_lists_that_the_events_before_would_have_given():
    """Against a state in which the newest event of each user has not happened."""
    state, before = a_state(), State(CONFIG.state, CONFIG.events)
    generation = built(good(), state)
    trial = tried(generation, generation, state)
    hits = trial.contest.hits("the new model")
    assert hits == trial.contest.hits("the serving model") > 0
    assert trial.overlap == pytest.approx(trial.contest.tried)
    before.fold(decoded(log()[:-USERS]))
    alone = built(good(), before)
    lists = recommend([Query(f"u{user:02}", "", K) for user in range(10, USERS)], before, alone, CONFIG.ranking)
    want = sum(
        had(user, 5) in {item.item_id for item in ranking.items}
        for user, ranking in zip(range(10, USERS), lists, strict=True)
    )
    # The graph knows the newest events in the one and not in the other, so a few may differ.
    assert abs(hits - want) <= 5


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("sources", [5, 12])  # what follows is read with the votes, and beside them
def test_the_own_last_step_leads_no_list_to_the_answer(sources: int, partitions: int) -> None:
    """Every other user ends with an item that nobody had before; the others with one that had followed for many."""
    config = Config(state=CONFIG.state, ranking=RankingConfig(neighbor_sources=sources))
    last = {user: 40 + user if user % 2 else (user + 8) % 30 for user in range(USERS)}
    rows = [(user, (user + time) % 30, time) for time in range(8) for user in range(USERS)]
    rows += [(user, item, 9) for user, item in last.items()]
    state = State(config.state, config.events, partitions=partitions)
    for at, (user, item, time) in enumerate(rows):
        line = Line(f"u{user:02}", "", ITEMS[item], 7, NOW_MS + 60_000 * time + user, user % partitions, at, f"e{at}")
        state.fold(batch([line]))
    model, followed = built(good(), state), set()

    def maker(asked: Asked, moment: Moment, config: RankingConfig) -> list[Page]:
        found = weigh(asked, moment, model, config).listable
        for b, row in enumerate(asked.users.tolist()):
            _, placed, at = state.home_of(row)
            user = int(placed.slice.users.id_of(at)[1:])
            source = found.source[b][found.row[b] == state.items.find([ITEMS[last[user]]]).item()]
            if source.size and source.item() & NEIGHBOR_BIT:
                followed.add(user)
        return make_lists(asked, moment, model, config).pages

    contest = Contest(config.ranking, recent(state, USERS), {"a model": maker} | scorer_makers())
    while not contest.step(state):
        pass
    assert followed == set(range(0, USERS, 2))


def test_everybody_is_asked_by_the_clock_of_the_event_that_is_asked_for():
    """A model knows how long somebody was away: by the clock of the newest event of all it answers another question."""
    state = a_state()
    model, checked = built(good(), state), 0

    def maker(asked: Asked, moment: Moment, config: RankingConfig) -> list[Page]:
        nonlocal checked
        want = state.graph.user_items.latest(torch.from_numpy(asked.users), 1).time_ms[:, 0]
        assert asked.clock_ms is not None and asked.clock_ms.tolist() == want.tolist()
        for b in range(len(asked)):
            one = asked.select([b])
            late = replace(one, clock_ms=None)
            then = Now(state, 0)
            then.clock_ms = int(want[b])
            found = weigh(one, moment, model, config).features
            np.testing.assert_array_equal(found, weigh(late, then, model, config).features)
            assert (found != weigh(late, moment, model, config).features).any()
            checked += 1
        return list(make_lists(asked, moment, model, config).pages)

    but_the_newest = recent(state, 6)[1:]
    contest = Contest(CONFIG.ranking, but_the_newest, {"a model": maker})
    while not contest.step(state):
        pass
    assert checked == contest.tried == 5


def test_a_basket_is_one_question_that_is_asked_before_it():
    """Events of one session and time, whose order says nothing; whoever had nothing before is not asked."""
    bought = [("u00", "1", "i000", 0), ("u00", "2", "i001", 1), ("u00", "2", "i002", 1), ("u01", "1", "i003", 1),
              ("u01", "1", "i004", 1), ("u02", "1", "i005", 0), ("u02", "1", "i006", 1), ("u03", "1", "i005", 1),
              ("u03", "2", "i007", 1)]  # fmt: skip
    state = State(CONFIG.state, CONFIG.events)
    state.fold(decoded([(user, trip, item, 7, NOW_MS + at * HOUR_MS) for user, trip, item, at in bought]))
    users = state.find_users([f"u{user:02}" for user in range(4)])
    seen, ids = {}, state.items.ids()

    def maker(asked: Asked, moment: Moment, config: RankingConfig) -> list[Page]:
        for user, rows in zip(asked.users.tolist(), asked.history.row.tolist(), strict=True):
            seen[f"u{users.index(user):02}"] = [ids[row] for row in rows if row >= 0]
        return scorer_makers()["popularity"](asked, moment, config)

    contest = Contest(CONFIG.ranking, torch.tensor(users), {"one": maker, "none": nothing})
    while not contest.step(state):
        pass
    assert seen == {"u00": ["i000"], "u02": ["i005"], "u03": ["i005"]}
    assert contest.hit == {"one": [True] * 3, "none": [False] * 3}


def nothing(asked: Asked, moment: Moment, config: RankingConfig) -> list[Page]:
    no_rows = np.zeros(0, np.int64)
    return [Page(no_rows, no_rows.astype(np.float64), no_rows)] * len(asked)


def test_one_maker_is_behind_another_where_chance_does_not_explain_it():
    contest = Contest(CONFIG.ranking, torch.zeros(0, dtype=torch.int64), {"one": unasked, "other": unasked})

    def is_behind(both: int, only_one: int, only_other: int) -> bool:
        contest.hit["one"] = [True] * (both + only_one) + [False] * only_other
        contest.hit["other"] = [True] * both + [False] * only_one + [True] * only_other
        return contest.is_behind("one", "other")

    assert not is_behind(40, 0, 0) and not is_behind(30, 9, 9) and not is_behind(30, 9, 16)
    assert is_behind(30, 9, 20) and is_behind(0, 0, 30) and is_behind(40, 0, 3)


def unasked(asked: Asked, moment: Moment, config: RankingConfig) -> list[Page]:
    raise AssertionError("nobody is there to be asked for")


def test_a_model_that_hits_far_less_is_refused_with_both_rates():
    state = a_state()
    config = CONFIG.model_copy(update={"canary": CanaryConfig(users=30, min_scorer_share=0)})
    trial = tried(built(ordered(-1.0), state), built(good(), state), state, config)
    with pytest.raises(Refused, match=r"hit_rate@20 .* of 30 recent users must be at least 0.5 .*serving model's"):
        trial.check()


def test_what_it_must_reach_is_a_setting():
    state = a_state()
    config = CONFIG.model_copy(update={"canary": CanaryConfig(users=30, min_hit_rate_share=0, min_scorer_share=0)})
    tried(built(ordered(-1.0), state), built(good(), state), state, config).check()


def test_few_hits_of_the_serving_model_prove_nothing():
    state = a_state()
    config = CONFIG.model_copy(update={"canary": CanaryConfig(users=15, min_scorer_share=0)})
    tried(built(ordered(-1.0), state), built(good(), state), state, config).check()


def popular_state() -> State:
    """Most users had the same items last, which popularity knows."""
    state = a_state()
    at = len(log())
    rows = [(f"u{user:02}", "", ITEMS[user % 5], 7, NOW_MS + 100 * HOUR_MS + user) for user in range(USERS)]
    state.fold(decoded(rows, at))
    return state


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_first_model_of_random_weights_is_refused_because_popularity_hits_more(seed):
    state = popular_state()
    torch.manual_seed(seed)
    shape = ModelShape(vocabulary=len(ITEMS), content_dim=CONTENT_DIM, kinds=KINDS, dim=16, blocks=1, window=4)
    model = Recommender(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    trial = tried(built(Weights(model.eval().requires_grad_(False), ITEMS), state), None, state)
    assert trial.contest.hits("popularity") == 30
    with pytest.raises(Refused, match=r"at least 1 \(canary.min_scorer_share\) of that of \w+, 1.000, got 0"):
        trial.check()


def test_a_model_after_the_first_is_refused_too_where_counting_hits_more():
    state = popular_state()
    config = CONFIG.model_copy(update={"canary": CanaryConfig(users=30, min_hit_rate_share=0, min_scorer_share=1)})
    bad = built(ordered(-1.0), state)
    with pytest.raises(Refused, match=r"canary.min_scorer_share"):
        tried(bad, bad, state, config).check()


def test_a_first_model_that_hits_as_much_as_the_scorers_is_taken():
    state = a_state()
    trial = tried(built(good(), state), None, state)
    assert trial.contest.hits("the new model") > trial.contest.hits("popularity")
    trial.check()


@pytest.mark.parametrize(("share", "hits", "counted", "taken"), [
    (1.0, 20, 20, True), (1.0, 99, 100, True), (1.0, 80, 100, False), (1.0, 19, 19, True), (1.0, 5, 30, False),
    (1.0, 20, 0, True), (1.5, 31, 20, True), (1.5, 110, 100, False), (0.0, 0, 100, True),
])  # fmt: skip
def test_how_much_of_the_best_scorer_a_model_must_reach_is_a_setting(share, hits, counted, taken, caplog):
    caplog.set_level("INFO")
    state = a_state()
    config = CONFIG.model_copy(update={"canary": CanaryConfig(min_scorer_share=share)})
    trial = Trial(config, built(good(), state), torch.zeros(0, dtype=torch.int64), None)
    for name, count in {"the new model": hits, "covisitation": counted}.items():
        trial.contest.hit[name] = [at < count for at in range(200)]
    for name in ("frequency", "popularity"):
        trial.contest.hit[name] = [False] * 200
    if taken:
        trial.check()
    else:
        with pytest.raises(Refused, match="of that of covisitation"):
            trial.check()
    assert ("is not compared with the scorers" in caplog.text) == (max(hits, counted) < 20)


def test_lists_may_have_to_overlap():
    state = a_state()
    config = CONFIG.model_copy(
        update={"canary": CanaryConfig(users=30, min_hit_rate_share=0, min_scorer_share=0, min_overlap=0.9)}
    )
    with pytest.raises(Refused, match=r"share at least 0.9 \(canary.min_overlap\) .* got 0\.[0-8]"):
        tried(built(ordered(-1.0), state), built(good(), state), state, config).check()
    same = built(good(), state)
    tried(same, same, state, config).check()


def test_users_that_are_gone_since_are_left_out():
    state = a_state()
    generation, users = built(good(), state), recent(state, 30)
    state.drop(0)
    trial = Trial(CONFIG, generation, users, generation)
    while not trial.step(state):
        pass
    assert trial.contest.tried == 0
    trial.check()


def test_embeddings_that_are_all_alike_are_refused():
    state = a_state()
    frozen = Frozen.of(state)
    with pytest.raises(Refused, match="item embeddings of recent users must differ"):
        check_vectors(built(collapsed(), state), frozen, recent(state, 30))


def test_sessions_that_are_all_alike_or_not_finite_are_refused():
    state = a_state()
    frozen, generation = Frozen.of(state), built(good(), state)
    users = recent(state, 30)
    with torch.no_grad():
        generation.model.sequence.out.weight.zero_()
    with pytest.raises(Refused, match="encoded sessions of recent users must differ"):
        check_vectors(generation, frozen, users)
    with torch.no_grad():
        generation.model.sequence.out.bias.fill_(float("nan"))
    with pytest.raises(Refused, match="not finite"):
        check_vectors(generation, frozen, users)


def test_item_embeddings_must_have_length_1():
    state = a_state()
    generation = built(good(), state)
    generation.embedder.items[3] *= 1.5
    with pytest.raises(Refused, match=r"length 1, got one that is off by 0\.5"):
        check_vectors(generation, Frozen.of(state), torch.zeros(0, dtype=torch.int64))


def test_an_engine_refuses_a_bad_model_with_the_reason_and_the_old_one_goes_on():
    with Engine(config=CONFIG) as engine:
        engine.source.append([record(CONFIG, at, user, item) for at, (user, _, item, *_) in enumerate(log())])

        def push(weights: Weights, version: int) -> None:
            engine.pipeline.install(encode_weights(weights), version, {}).result(DEADLINE_S)

        with pytest.raises(Refused, match=r"canary\.min_scorer_share"):
            push(ordered(-1.0), 1)
        assert engine.pipeline.ask(Query("u01", "", 5)).result(DEADLINE_S).model_version == 0
        push(good(), 1)
        for bad, reason in ((collapsed(), "must differ"), (ordered(-1.0), "of the newest events|newest events of 30")):
            with pytest.raises(Refused, match=reason):
                push(bad, 2)
        assert engine.pipeline.ask(Query("u01", "", 5)).result(DEADLINE_S).model_version == 1
        push(good(seed=1), 2)
        assert engine.pipeline.status().model_versions == (1, 2)
