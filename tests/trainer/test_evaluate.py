"""What a training says of a model, and of the scorers beside it, is what the engine's own state would have earned."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest
import torch

from engine.ranking.asked import Asked
from engine.ranking.moment import Now
from engine.ranking.query import Query
from engine.ranking.scorers import SCORERS
from engine.signals import Stopped
from engine.state.state import State
from tests.trainer.planted import KINDS, RANKING, decoded, planted_log, replayed, small_config
from trainer.dataset import Histories
from trainer.evaluate import best_scorer, evaluate
from trainer.forward import ItemForward
from trainer.progress import Progress
from trainer.replay import TrainingData
from trainer.start import start_weights, words

CONFIG = small_config()
HISTORY = 16


def judged(data: TrainingData, first: int, last: int, stop: threading.Event | None = None) -> dict[str, float]:
    weights = start_weights(data, first, CONFIG, None)
    forward = ItemForward(weights.model.eval(), words(data.item_ids, weights.vocabulary), data.content)
    histories = Histories(data.log)
    questions = histories.questions(first, last)
    return evaluate(forward, data, histories, questions, stop or threading.Event(), Progress())


def test_scorers_earn_what_they_would_have_earned_over_the_engines_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.walk._AT_ONCE", 1)
    log, first, last = planted_log(300, users=8, pairs=30), 200, 300
    replay = replayed(log, history=HISTORY)
    data, events = replay.data(), log.events
    state = State(data.state, KINDS)
    earned: dict[str, list[float]] = {name: [] for name in SCORERS}
    for at in range(last):
        who, item = events.user_id[at], events.item_id[at]
        if at >= first and state.find_users([who])[0] >= 0:
            asked = Asked.of([Query(who, "", 20)], state, RANKING)
            for name, scorer in SCORERS.items():
                (made,) = scorer(asked, Now(state, state.newest_ms), RANKING)
                listed = [state.items.id_of(row) for row in made.page.row.tolist()]
                earned[name].append(1 / math.log2(listed.index(item) + 2) if item in listed else 0.0)
        one = decoded([who], [item], [int(events.time_ms[at])], [events.session_id[at]], [], first_offset=at)
        state.fold(replace(one, items=log.items) if at == 0 else one)
    metrics = judged(data, first, last)
    assert metrics["events"] == len(earned["popularity"])
    for name, gains in earned.items():
        assert metrics[f"{name}_ndcg@20"] == pytest.approx(sum(gains) / len(gains), abs=0.02)  # ties by other rows
        assert metrics[f"{name}_ndcg@20"] > 0
    assert best_scorer(metrics) == max(
        ((name, metrics[f"{name}_ndcg@20"]) for name in SCORERS), key=lambda named: named[1]
    )


def test_the_future_does_not_change_what_is_predicted() -> None:
    whole, cut = (replayed(planted_log(600), history=HISTORY).data() for _ in range(2))
    # Whatever comes after the slice, and the targets' own later events, must be invisible: only the known part counts.
    cut.log.item[500:] = 0
    assert judged(whole, 300, 500) == judged(cut, 300, 500)


def test_a_stop_ends_it() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        judged(replayed(planted_log(100)).data(), 50, 100, stop)


def test_a_slice_without_questions_earns_nothing() -> None:
    metrics = judged(replayed(planted_log(100)).data(), 100, 100)
    assert metrics["events"] == 0 and metrics["ndcg@20"] == 0 and not torch.tensor([*metrics.values()]).any()
