"""Training ends where it gains no more, with the weights that scored best."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import Tensor

from engine.state.ring import Neighbors
from tests.trainer.planted import decoded, last_of, planted_log, replayed, small_config
from trainer.config import Recipe
from trainer.dataset import Histories
from trainer.early_stopping import EarlyStopping
from trainer.encoder import EncoderTrainer
from trainer.forward import ItemForward
from trainer.live_fold import insert
from trainer.progress import Progress
from trainer.schedule import Schedule
from trainer.start import start_weights, words
from trainer.train import train
from trainer.validation import Validation
from trainer.walk import empty_graph

DATA = replayed(planted_log(600)).data()


def test_it_is_exhausted_after_as_many_scores_without_a_gain_and_keeps_the_best() -> None:
    stopping = EarlyStopping(2)
    for step, score in enumerate((0.1, 0.3, 0.2, 0.3)):
        assert not stopping.exhausted()
        stopping.saw(score, [torch.tensor(score)], step)
    assert stopping.exhausted()
    assert stopping.weights == [torch.tensor(0.3)] and (stopping.step, stopping.best) == (1, 0.3)
    never = EarlyStopping(0)
    for _ in range(9):
        never.saw(0.0, [], 0)
    assert not never.exhausted()


class Scripted:
    """A validation that says what it is told, and keeps the weights that it is asked about."""

    def __init__(self, scores: list[float]) -> None:
        self._scores = scores
        self.asked: list[tuple[bool, dict[str, Tensor]]] = []

    def __call__(self, forward: ItemForward, linked: bool) -> float:
        self.asked.append((linked, tensors_of(forward)))
        return self._scores.pop(0)


def tensors_of(forward: ItemForward) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in forward.model.state_dict().items()}


def forward_of(config: Recipe) -> ItemForward:
    weights = start_weights(DATA, len(DATA.log), config, None)
    return ItemForward(weights.model, words(DATA.item_ids, weights.vocabulary), DATA.content)


def trained(validate: Scripted | None, **changes: object) -> tuple[EncoderTrainer, ItemForward, Schedule, bool]:
    config = small_config(max_steps=40, validate_steps=4, batch=8, **changes)
    forward, schedule, histories = forward_of(config), Schedule(config.max_steps), Histories(DATA.log)
    trainer = EncoderTrainer(forward, DATA, histories, len(DATA.log), config, schedule, validate=validate)
    return trainer, forward, schedule, trainer.run(threading.Event(), Progress())


def is_same(forward: ItemForward, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, weights[name]) for name, tensor in forward.model.state_dict().items())


def test_it_ends_where_nothing_is_gained_any_more_and_is_best_where_it_scored_best() -> None:
    validate = Scripted([0.1, 0.3, 0.2, 0.2])
    trainer, forward, schedule, over = trained(validate, patience=2)
    assert (schedule.step, trainer.best_step, over) == (16, 8, True)
    raw = tensors_of(forward)
    with trainer.best():
        assert is_same(forward, validate.asked[1][1])
    assert is_same(forward, raw)


def test_one_that_goes_on_gaining_runs_to_its_end() -> None:
    validate = Scripted([at / 100 for at in range(12)])
    trainer, _, schedule, over = trained(validate, patience=2)
    assert len(validate.asked) == 10
    assert (schedule.step, trainer.best_step, over) == (40, 40, True)


def test_without_a_validation_the_best_is_the_mean_of_the_last_weights() -> None:
    trainer, forward, schedule, over = trained(None)
    assert (schedule.step, trainer.best_step, over) == (40, 40, True)
    raw = tensors_of(forward)
    with trainer.best():
        assert not is_same(forward, raw)


def test_one_that_ran_out_of_time_goes_on_as_if_it_had_never_stopped() -> None:
    config, ended = small_config(max_steps=None, batch=8), []
    for pauses in ((30,), (7, 19, 30)):
        forward, histories, schedule = forward_of(config), Histories(DATA.log), Schedule(None)
        trainer = EncoderTrainer(forward, DATA, histories, len(DATA.log), config, schedule)
        for pause in pauses:
            trainer.run(threading.Event(), Until(schedule, pause))
            schedule.budget_s = math.inf
        with trainer.best():
            ended.append(tensors_of(forward))
    assert all(torch.equal(tensor, ended[1][name]) for name, tensor in ended[0].items())


class Until(Progress):
    """Lets the time be over after a step."""

    def __init__(self, schedule: Schedule, step: int) -> None:
        super().__init__()
        self._schedule, self._step = schedule, step

    def update(self, stage: str, done: float, note: str = "") -> None:
        if self._schedule.step == self._step:
            self._schedule.budget_s = 1e-9


def test_a_log_in_which_nothing_comes_after_anything_teaches_nothing_and_ends() -> None:
    strangers = [f"u{at}" for at in range(20)]
    data = replayed(decoded(strangers, ["A0"] * 20, list(range(10**12, 10**12 + 20)), [""] * 20, [])).data()
    forward = forward_of(small_config())
    schedule = Schedule(None)
    trainer = EncoderTrainer(forward, data, Histories(data.log), 20, small_config(max_steps=None), schedule)
    assert trainer.run(threading.Event(), Progress()) and schedule.step == 0


def test_a_training_with_patience_stops_early_and_is_judged() -> None:
    # The least rate there is: no validation gains on the first.
    config = small_config(max_steps=400, patience=1, validate_steps=2, learning_rate=1e-12, ranker_epochs=1)
    assert last_of(train(DATA, config, None, threading.Event(), Progress())).steps < 20


@pytest.mark.parametrize("linked", [False, True])
def test_validation_is_the_mean_gain_over_a_plain_ranking_of_all_items(linked: bool) -> None:
    config = small_config()
    first, last = 500, 600
    forward = forward_of(config)
    with torch.no_grad():  # so that ranks depend on each neighbor
        forward.model.graph.item_from_next.lin_value.weight *= 30
    DATA.deleted[3] = True
    try:
        histories = Histories(DATA.log)
        got = Validation(DATA, histories, histories.questions(first, last), first).score(forward, linked)
        log, model = DATA.log, forward.model.eval()
        graph = empty_graph(DATA)
        insert(graph, log.slice(0, first))
        gains = []
        with torch.no_grad():
            table = forward(torch.arange(DATA.items), graph if linked else None)
            for at in range(first, last):
                before = (log.user[:at] == log.user[at]).nonzero().squeeze(1)[-config.window - 1 :]
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
