"""Training ends where it gains no more, with the weights that scored best."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from engine.state.ring import Neighbors
from tests.trainer.planted import planted_log, replayed, small_config
from trainer.config import TrainSection
from trainer.dataset import Histories
from trainer.early_stopping import EarlyStopping
from trainer.encoder import EncoderTrainer, Schedule
from trainer.forward import ItemForward
from trainer.live_fold import insert
from trainer.progress import Progress
from trainer.train import start_weights, train, words
from trainer.validation import Validation
from trainer.walk import empty_graph

DATA = replayed(planted_log(600)).data()


def test_it_is_exhausted_after_as_many_scores_without_a_gain_and_gives_the_best_back() -> None:
    model, stopping = nn.Linear(1, 1, bias=False), EarlyStopping(2)
    for score in (0.1, 0.3, 0.2, 0.3):
        assert not stopping.exhausted()
        nn.init.constant_(model.weight, score)
        stopping.saw(score, model)
    assert stopping.exhausted()
    nn.init.constant_(model.weight, 9.0)
    stopping.give_best(model)
    assert model.weight.item() == pytest.approx(0.3)
    assert not stopping.exhausted()
    stopping.give_best(model)  # nothing was seen since
    assert model.weight.item() == pytest.approx(0.3)


class Scripted:
    """A validation that says what it is told, and keeps the weights that it is asked about."""

    def __init__(self, scores: list[float]) -> None:
        self._scores = scores
        self.asked: list[tuple[bool, dict[str, Tensor]]] = []

    def __call__(self, forward: ItemForward, linked: bool) -> float:
        self.asked.append((linked, {name: t.clone() for name, t in forward.model.state_dict().items()}))
        return self._scores.pop(0)


def encoder_of(config: TrainSection) -> ItemForward:
    torch.manual_seed(1)
    weights = start_weights(DATA, len(DATA.log), config, None)
    return ItemForward(weights.model, words(DATA.item_ids, weights.vocabulary), DATA.content)


def trained(validate: Scripted, **changes: object) -> tuple[ItemForward, Schedule]:
    config = small_config(max_steps=40, graph_share=0.5, validate_steps=4, batch=8, **changes)
    forward, schedule = encoder_of(config), Schedule(0, config.max_steps)
    histories = Histories(DATA.log)
    trainer = EncoderTrainer(forward, DATA, histories, len(DATA.log), config, schedule, validate=validate)
    trainer.run(threading.Event(), Progress())
    return forward, schedule


def is_same(forward: ItemForward, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, weights[name]) for name, tensor in forward.model.state_dict().items())


def test_each_part_ends_where_it_gains_no_more_and_the_next_begins_with_its_best() -> None:
    #                    without the graph; with it: best first
    validate = Scripted([0.1, 0.3, 0.2, 0.2, 0.2, 0.1, 0.1])
    forward, schedule = trained(validate, patience=2)
    # Steps 4, 8, 12 and 16 of the first 20; then 20, 24 and 28.
    assert [linked for linked, _ in validate.asked] == [False] * 4 + [True] * 3
    assert schedule.step == 28
    assert schedule.progress() == 1.0
    assert is_same(forward, validate.asked[4][1])


def test_a_part_that_goes_on_gaining_runs_to_its_end() -> None:
    validate = Scripted([at / 100 for at in range(12)])
    forward, schedule = trained(validate, patience=2)
    # Five in each part, and at the end of each once more.
    assert [linked for linked, _ in validate.asked] == [False] * 6 + [True] * 6
    assert schedule.step == 40
    assert is_same(forward, validate.asked[-1][1])


def test_the_graph_comes_to_the_best_weights_of_the_part_without_it() -> None:
    config = small_config(max_steps=4, graph_share=0.25, validate_steps=1, batch=8, learning_rate=1e-9, patience=9)
    validate = Scripted([0.3, 0.2, 0.1, 0.1, 0.4, 0.4])
    forward, schedule = encoder_of(config), Schedule(0, config.max_steps)
    EncoderTrainer(forward, DATA, Histories(DATA.log), len(DATA.log), config, schedule, validate=validate).run(
        threading.Event(), Progress()
    )
    name = "sequence.out.weight"
    best, last, linked = validate.asked[0][1][name], validate.asked[2][1][name], validate.asked[4][1][name]
    assert (linked - best).abs().max() < (linked - last).abs().max()


def test_without_patience_nothing_is_validated() -> None:
    validate = Scripted([])
    assert trained(validate)[1].step == 40
    assert validate.asked == []


def test_a_training_with_patience_stops_early_and_is_judged() -> None:
    # The least rate there is: no validation gains on the first.
    config = small_config(max_steps=400, patience=1, validate_steps=2, learning_rate=1e-12, ranker_epochs=1)
    assert train(DATA, config, None, threading.Event(), Progress()).steps < 20


@pytest.mark.parametrize("linked", [False, True])
def test_validation_is_the_mean_gain_over_a_plain_ranking_of_all_items(linked: bool) -> None:
    config = small_config(validation_samples=100)
    first, last = 500, 600
    forward = encoder_of(config)
    with torch.no_grad():  # so that ranks depend on each neighbor
        forward.model.graph.item_from_next.lin_value.weight *= 30
    DATA.deleted[3] = True
    try:
        got = Validation(DATA, Histories(DATA.log), first, last, config).score(forward, linked)
        log, model = DATA.log, forward.model.eval()
        graph = empty_graph(DATA)
        insert(graph, log.slice(0, first))
        gains = []
        with torch.no_grad():
            table = forward(torch.arange(DATA.items), graph if linked else None)
            for at in range(first, last):
                before = (log.user[:at] == log.user[at]).nonzero().squeeze(1)[-config.window :]
                if not len(before):
                    continue
                columns = (log.item, log.time_ms, log.kind, log.value, log.session)
                history = Neighbors(*(column[before][None] for column in columns))
                score = table @ model.sequence(table, history)[0, -1]
                score[3] = -2
                better = int((score > score[log.item[at]]).sum())
                gains.append(float(1 / torch.log2(torch.tensor(better + 2.0))) if better < 20 else 0.0)
    finally:
        DATA.deleted[3] = False
    assert got == pytest.approx(sum(gains) / len(gains), abs=1e-6)
