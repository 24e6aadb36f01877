from __future__ import annotations

import itertools
import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.config import RankingConfig
from engine.events.batch import Decoded
from engine.features.table import Feature
from engine.features.votes import VOTES
from engine.model.weights import Weights, decode_weights, encode_weights
from engine.ranking.list_kernels import Listable, weigh_lists
from engine.ranking.scorers import SCORERS
from engine.signals import Stopped
from tests.trainer.planted import KINDS, RANKING, last_of, planted_log, replayed, small_config
from trainer.config import TrainerConfig
from trainer.data.file_log import replay_files
from trainer.encoder import EncoderTrainer
from trainer.gate import refusal
from trainer.progress import Progress
from trainer.schedule import Schedule
from trainer.start import continues, start_weights
from trainer.train import Trained, train

LOG = planted_log(4000)


def trained(ranking: RankingConfig = RANKING, **changes: object) -> Trained:
    return last_of(
        train(replayed(LOG, ranking=ranking).data(), small_config(**changes), None, threading.Event(), Progress())
    )


@pytest.fixture(scope="module")
def once() -> Trained:
    return trained()


def test_learns_that_b_follows_a(once: Trained) -> None:
    # Half of all targets are a B after its A; the other half can't be known, and popularity knows nothing of either.
    assert once.metrics["popularity_hit_rate@20"] < 0.4
    assert once.metrics["hit_rate@20"] > 0.55
    assert once.metrics["ndcg@20"] > 2 * once.metrics["popularity_ndcg@20"]


def test_the_encoders_alone_learn_it_too() -> None:
    # Without the items that followed as candidates and as a feature, only the query vector can know.
    result = trained(RANKING.model_copy(update={"neighbor_sources": 0}), max_steps=150)
    assert result.metrics["hit_rate@20"] > 0.55


def test_same_seed_and_steps_give_the_same_weights(once: Trained) -> None:
    first, same, other = (run.weights.model.state_dict() for run in (once, trained(), trained(seed=2)))
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in first.items())


def test_weights_survive_the_way_to_the_engine(once: Trained) -> None:
    decoded = decode_weights(encode_weights(once.weights))
    assert list(decoded.vocabulary) == list(once.weights.vocabulary)


def test_ends_within_its_time_budget() -> None:
    started = time.monotonic()
    result = trained(max_steps=None, first_minutes=0.03, max_minutes=0.05)
    assert result.steps > 0
    assert time.monotonic() - started < 20


def test_a_first_model_may_take_no_longer_than_the_whole_training(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = []

    class Seen(Schedule):
        def __init__(self, steps: int | None, budget_s: float) -> None:
            super().__init__(steps, budget_s)
            budgets.append(budget_s)

    monkeypatch.setattr("trainer.train.Schedule", Seen)
    trained(max_steps=4, first_minutes=1000, max_minutes=1)
    assert 0 < budgets[0] <= 60


@pytest.mark.parametrize("next_is_better", [True, False])
def test_a_first_verdict_asks_few_and_the_last_word_is_of_all(
    once: Trained, monkeypatch: pytest.MonkeyPatch, next_is_better: bool
) -> None:
    monkeypatch.setattr("trainer.train._FIRST_ASKED", 10)
    compared = []

    def better(self: object, one: Trained, other: Trained) -> bool:
        compared.append((one.metrics["events"], other.metrics["events"]))
        return next_is_better

    monkeypatch.setattr("trainer.train._Training._is_better", better)
    config = small_config(max_steps=6, first_minutes=1e-9, max_minutes=60, refit=True)  # the first: of one step
    another = last_of(
        train(
            replayed(planted_log(4000, catalog="x")).data(),
            small_config(max_steps=2),
            None,
            threading.Event(),
            Progress(),
        )
    )
    models = list(train(replayed(LOG).data(), config, another.weights, threading.Event(), Progress()))
    asked = once.metrics["events"]
    assert all(model.before is not None and model.before["events"] == model.metrics["events"] for model in models)
    assert models[0].metrics["events"] == 10 < asked
    assert models[-1].metrics["events"] == asked
    assert compared[0] == (asked, asked)


def test_a_stop_ends_it() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        last_of(train(replayed(LOG).data(), small_config(), None, stop, Progress()))


def test_a_second_training_starts_from_the_first_and_is_compared_with_it(once: Trained) -> None:
    longer = replayed(planted_log(4400)).data()
    again = last_of(train(longer, small_config(max_steps=5), once.weights, threading.Event(), Progress()))
    fresh = last_of(train(longer, small_config(max_steps=5), None, threading.Event(), Progress()))
    assert again.before is not None and again.before["hit_rate@20"] > 0.55
    assert again.metrics["ndcg@20"] > fresh.metrics["ndcg@20"]
    assert fresh.before is None


def test_a_model_with_goals_learns_those_that_came_up() -> None:
    goal = trained(by_kind=True, max_steps=20).weights.model.sequence.goal
    assert goal is not None
    purchase = list(KINDS.kinds).index("purchase")  # all that the log has
    assert [kind for kind, vector in enumerate(goal.weight) if vector.any()] == [purchase]


@pytest.mark.parametrize("name", ["augment_crop", "augment_mask", "augment_reorder"])
def test_each_augmentation_is_trained_with(name: str) -> None:
    plain, changed = (trained(max_steps=3, **{name: p}).weights.model.state_dict() for p in (0.0, 0.5))
    assert not torch.equal(plain["sequence.out.weight"], changed["sequence.out.weight"])


def test_a_warm_start_keeps_each_id_with_its_item(once: Trained) -> None:
    data = replayed(planted_log(4400)).data()
    weights = start_weights(data, len(data.log), small_config(), once.weights)
    assert list(weights.vocabulary) != list(once.weights.vocabulary)  # the order is by count, which has changed
    old = dict(zip(once.weights.vocabulary, once.weights.model.graph.identity.weight[1:], strict=True))
    for item_id, vector in zip(weights.vocabulary, weights.model.graph.identity.weight[1:], strict=True):
        assert torch.equal(vector, old[item_id])


@pytest.fixture(scope="module")
def elsewhere() -> Trained:
    """Trained on a catalog of other ids."""
    return by_content(planted_log(4000), None, 100)


def nobody_votes(*asked: Any) -> tuple[Listable, NDArray[np.float32], NDArray[np.float32]]:
    listable, cosine, features = weigh_lists(*asked)
    features[listable.row >= 0, Feature.VOTE : Feature.VOTE + VOTES] = math.log(1e-4) / 4 + 1
    return listable, cosine, features


def by_content(log: Decoded, previous: Weights | None, steps: int) -> Trained:
    """Trained where only the session's query, and no neighbor in the graph, can tell what comes next."""
    config = small_config(max_steps=steps)
    ranking = RankingConfig(neighbor_sources=0, index_candidates=20, popular_candidates=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.ranking.lists.weigh_lists", nobody_votes)
        data = replayed(log, content_dim=64, ranking=ranking).data()
        return last_of(train(data, config, previous, threading.Event(), Progress()))


def test_another_catalogs_weights_are_worth_more_than_none_because_content_means_the_same(elsewhere: Trained) -> None:
    log = planted_log(2000, seed=5, catalog="other-")
    # Where the same titles follow upon others, what was learned of them is worth little.
    misleading = planted_log(2000, seed=5, catalog="other-", shift=7)
    starts = ((log, elsewhere.weights), (log, None), (misleading, elsewhere.weights))
    warm, fresh, misled = (by_content(*start, 2).metrics["ndcg@20"] for start in starts)
    assert warm > 0.35
    assert warm > max(fresh, misled) + 0.1  # 0.11 to 0.31 with other seeds


def test_another_catalogs_weights_give_all_but_their_ids(elsewhere: Trained) -> None:
    data = replayed(planted_log(2000, catalog="other-"), content_dim=64).data()
    weights = start_weights(data, len(data.log), small_config(), elsewhere.weights)
    assert not set(weights.vocabulary) & set(elsewhere.weights.vocabulary)
    old, new = (one.model.state_dict() for one in (elsewhere.weights, weights))
    learned, begun = (tensors.pop("graph.identity.weight") for tensors in (old, new))
    assert not new.pop("habit").any()  # counted from the log, when training begins
    assert all(torch.equal(tensor, old[name]) for name, tensor in new.items())
    assert begun[1:].abs().max() < 0.05 < learned[1:].abs().max()  # as small as ids begin


@pytest.mark.parametrize(("catalog", "changes", "short"), [("", {}, True), ("x", {}, False), ("", {"dim": 32}, False)])
def test_only_a_model_that_knows_most_ids_has_but_a_short_training(
    once: Trained, catalog: str, changes: dict[str, object], short: bool
) -> None:
    data = replayed(planted_log(400, catalog=catalog)).data()
    start = start_weights(data, len(data.log), small_config(**changes), once.weights)
    assert continues(start, once.weights) == short


def test_a_training_goes_on_from_its_first_model_and_gives_what_is_better() -> None:
    config = small_config(max_steps=60, first_minutes=1e-9, max_minutes=60)  # its clock is over after the first step
    first, *more = train(replayed(LOG).data(), config, None, threading.Event(), Progress())
    assert first.steps == 1 and more
    assert more[-1].steps == 60 and more[-1].metrics["ndcg@20"] > first.metrics["ndcg@20"]


class OneStepAMinute(Schedule):
    def elapsed_s(self) -> float:
        return 60.0 * self.step


@pytest.mark.parametrize(("counted", "steps"), [(2.0, [1, 6, 21]), (0.0, [1, 21])])
def test_where_counting_beats_the_first_model_another_comes_in_between(
    monkeypatch: pytest.MonkeyPatch, counted: float, steps: list[int]
) -> None:
    monkeypatch.setattr("trainer.train.Schedule", OneStepAMinute)
    monkeypatch.setattr("trainer.train.best_scorer", lambda metrics: ("popularity", counted))
    monkeypatch.setattr("trainer.train._Training._is_better", lambda *_: True)
    config = small_config(max_steps=60, first_minutes=1e-9, max_minutes=60)
    models = train(replayed(LOG).data(), config, None, threading.Event(), Progress())
    assert [model.steps for model in models if not model.refitted] == steps


def test_once_judged_the_encoders_learn_from_the_newest_events_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []

    class Seen(EncoderTrainer):
        def __init__(self, forward, data, histories, end, *args, **more):  # type: ignore[no-untyped-def]
            ends.append(end)
            super().__init__(forward, data, histories, end, *args, **more)

    monkeypatch.setattr("trainer.train.EncoderTrainer", Seen)
    data = replayed(planted_log(400)).data()
    judged, last = train(data, small_config(max_steps=20, refit=True), None, threading.Event(), Progress())
    assert not judged.refitted and last.refitted and last.metrics == judged.metrics
    assert ends == [300, 400] or (ends[0] < ends[1] == 400)
    assert last.steps > judged.steps
    ranker = judged.weights.model.ranker.state_dict()
    assert all(torch.equal(tensor, ranker[name]) for name, tensor in last.weights.model.ranker.state_dict().items())


def test_users_with_three_events_in_a_mere_order_are_enough_to_learn_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.csv"
    rows = [f"u{user},i{(user + at) % 7},{at}" for user in range(400) for at in range(3)]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    config = TrainerConfig.model_validate({"trainer": {"min_events": 10}})
    data = replay_files(path, None, config, threading.Event()).data()
    last_of(train(data, small_config(max_steps=10), None, threading.Event(), Progress()))
    assert "have learned nothing" not in caplog.text
    at_once = replace(data, log=replace(data.log, time_ms=data.log.time_ms // 60_000 * 60_000))
    last_of(train(at_once, small_config(max_steps=10), None, threading.Event(), Progress()))
    assert caplog.text.count("the encoders have learned nothing") == 1


def judged(ndcg: float, coverage: float = 0.5) -> dict[str, float]:
    return {"ndcg@20": ndcg, "coverage@10": coverage, "covisitation_coverage@10": 0.5}


def test_a_model_that_falls_onto_the_popular_items_is_trained_anew_at_half_the_rate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    verdicts = iter([judged(0.1, 0.2), judged(0.2, 0.24), judged(0.15, 0.2)])
    monkeypatch.setattr("trainer.train.evaluate", lambda *asked: next(verdicts) | {"events": float(len(asked[3]))})
    rates: list[float] = []

    class Seen(EncoderTrainer):
        def __init__(self, forward, data, histories, end, config, *args, **more):  # type: ignore[no-untyped-def]
            rates.append(config.learning_rate)
            super().__init__(forward, data, histories, end, config, *args, **more)

    monkeypatch.setattr("trainer.train.EncoderTrainer", Seen)
    config = small_config(max_steps=4, learning_rate=0.008, refit=True)
    models = list(train(replayed(planted_log(400)).data(), config, None, threading.Event(), Progress()))
    assert rates == [0.008, 0.004, 0.002, 0.004]  # three attempts at most, and the best's own rate for what follows
    assert [one.metrics["ndcg@20"] for one in models] == [0.1, 0.2, 0.2]  # what is worse than before is not given
    assert caplog.text.count("has fallen onto the popular items") == 2


def test_how_much_of_the_catalog_lists_hold_is_told_of_the_model_and_of_each_scorer(once: Trained) -> None:
    shares = {name: value for name, value in once.metrics.items() if name.endswith("coverage@10")}
    assert shares.keys() == {"coverage@10", *(f"{name}_coverage@10" for name in SCORERS)}
    assert all(0 < share <= 1 for share in shares.values())


@pytest.mark.parametrize(("earned", "used"), [(1.005, False), (1.5, True)])
def test_the_graph_layers_serve_where_validation_says_that_they_earn_their_time(
    monkeypatch: pytest.MonkeyPatch, earned: float, used: bool
) -> None:
    verdicts = itertools.count(1.0)  # each is better than the one before
    monkeypatch.setattr("trainer.validation.Validation.score", lambda self, forward, linked: earned if linked else 1.0)
    monkeypatch.setattr("trainer.train.evaluate", lambda *_: judged(next(verdicts)))
    config = small_config(max_steps=6, graph_share=0.5, patience=2, refit=True)
    models = list(train(replayed(planted_log(400)).data(), config, None, threading.Event(), Progress()))
    linked = [one.weights.model.graph.linked for one in models]
    assert linked == ([False, True, True] if used else [False, False])
    assert linked == [one.weights.model.shape.linked for one in models]


def test_another_shape_starts_anew(once: Trained) -> None:
    data = replayed(LOG).data()
    assert start_weights(data, len(data.log), small_config(dim=32), once.weights).model.shape.dim == 32


def figures(own: float, covisitation: float, before: float | None) -> Trained:
    metrics = {
        "ndcg@20": own,
        "popularity_ndcg@20": 0.05,
        "covisitation_ndcg@20": covisitation,
        "frequency_ndcg@20": 0.0,
    }
    earlier = None if before is None else {"ndcg@20": before}
    return Trained(None, metrics, earlier, steps=1, seconds=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "covisitation", "before", "why"),
    [
        (0.2, 0.1, None, None),
        (0.1, 0.1, None, "above that of covisitation, got 0.1000 and 0.1000"),
        (0.2, 0.1, 0.21, None),
        (0.2, 0.1, 0.22, "at least 0.2090"),
        (0.05, 0.1, 0.01, "above that of covisitation"),
        (0.05, 0.01, None, "above that of popularity, got 0.0500 and 0.0500"),
    ],
)
def test_gate(own: float, covisitation: float, before: float | None, why: str | None) -> None:
    reason = refusal(figures(own, covisitation, before), max_drop=0.05)
    assert reason is None if why is None else reason is not None and why in reason


def test_in_half_precision_it_learns_the_same_and_keeps_whole_weights(once: Trained) -> None:
    half = trained(half=True)
    assert half.metrics["hit_rate@20"] > 0.55
    tensors = half.weights.model.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values() if tensor.is_floating_point())
    assert not torch.equal(tensors["sequence.out.weight"], once.weights.model.state_dict()["sequence.out.weight"])
