"""Epochs on a file's log: ended after any of them and gone on with, it is the training that never ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.evaluation.test_ousel import SMALL, next_of_last_sessions, planted
from trainer.checkpoint import Checkpoint
from trainer.evaluation.ousel import OuselScorer

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
