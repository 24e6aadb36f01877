"""Epochs on a file's log: ended after any of them and gone on with, it is the training that never ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.evaluation.test_ousel import SMALL, next_of_last_sessions, planted
from trainer.checkpoint import Checkpoint
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.training import Course, EpochTrainer

SETTINGS = replace(SMALL, epochs=4, id_dropout=0.2, stride=1.0)


class Killed(Exception):
    pass


class KilledAfterTwo(Checkpoint):
    saves = 0

    def save(self, state: object) -> None:
        super().save(state)  # type: ignore[arg-type]
        self.saves += 1
        if self.saves == 2:
            raise Killed


def test_killed_after_an_epoch_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    whole = OuselScorer(SETTINGS)
    whole.fit(events, train)
    with pytest.raises(Killed):
        OuselScorer(SETTINGS, checkpoint=KilledAfterTwo(tmp_path / "run.pt", "run")).fit(events, train)
    rest = OuselScorer(SETTINGS, checkpoint=Checkpoint(tmp_path / "run.pt", "run"))
    rest.fit(events, train)
    np.testing.assert_array_equal(rest.score(questions), whole.score(questions))
    losses = [[entry["loss"] for entry in scorer.course.curve] for scorer in (whole, rest)]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_batches_hold_every_window_once_and_about_as_many_inputs_each(monkeypatch: pytest.MonkeyPatch) -> None:
    trainers: list[EpochTrainer] = []
    monkeypatch.setattr(EpochTrainer, "run", lambda self: trainers.append(self) or Course())
    events = planted()
    lengths = np.random.default_rng(0).integers(2, 9, 54)  # owners of very unlike histories
    owner = np.repeat(np.arange(len(lengths)), lengths)[: len(events)]
    events = replace(events, session=np.r_[owner, np.full(len(events) - len(owner), 60)])
    OuselScorer(SETTINGS).fit(events, np.arange(len(owner)))
    (trainer,) = trainers
    batches = list(trainer._batches())
    last = sorted(at for windows in batches for at in windows.last.tolist())
    assert last == sorted(set(last)) == sorted(trainer._windows(None).last.tolist())
    inputs = [int(trainer._histories.length(windows, SETTINGS.window).sum()) for windows in batches]
    budget = SETTINGS.batch * sum(inputs) / len(last)
    assert max(inputs) <= budget + SETTINGS.window
    assert sum(size > budget / 2 for size in inputs) >= len(inputs) - 1
