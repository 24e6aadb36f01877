"""The encoders as a scorer: what they learn from a planted log, and what they must not see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.state.catalog import Catalog
from trainer.checkpoint import Checkpoint
from trainer.config import TrainerConfig
from trainer.data.files import Items
from trainer.data.log import Events, Questions
from trainer.evaluation.content import described
from trainer.evaluation.ousel import OuselScorer
from trainer.evaluation.training_data import ordinals

ITEMS, SESSIONS, LENGTH = 12, 80, 6
SHAPE = {"dim": 16, "heads": 2, "blocks": 1, "window": 8, "batch": 16, "learning_rate": 1e-2, "graph_share": 0.0}


def small(**changes: object) -> TrainerConfig:
    """A model that learns the planted log in a second."""
    trainer = SHAPE | {"epochs": 25, "min_count": 1, "dropout": 0.2, "id_dropout": 0.0, "weight_decay": 0.05} | changes
    return TrainerConfig.model_validate({"trainer": trainer, "state": {"content_dim": 16}})


def scorer_of(catalog: Catalog | None = None, checkpoint: Checkpoint | None = None, **changes: object) -> OuselScorer:
    return OuselScorer(small(**changes), by_session=True, catalog=catalog, checkpoint=checkpoint)


def planted() -> Events:
    """Sessions that step on through the items; the last one of the catalog comes up nowhere."""
    start = np.arange(SESSIONS) * 5
    item = (start[:, None] + np.arange(LENGTH)).ravel() % (ITEMS - 1)
    session = np.repeat(np.arange(SESSIONS), LENGTH)
    return Events(
        user=session,
        session=session,
        item=item,
        time=np.arange(len(item), dtype=np.float64),
        kind=np.zeros(len(item), np.int64),
        value=np.ones(len(item), np.float32),
        test=None,
        items=[f"i{at}" for at in range(ITEMS)],
        users=[str(at) for at in range(SESSIONS)],
        sessions=[str(at) for at in range(SESSIONS)],
        kinds=["view"],
        timed=False,
    )


def next_of_last_sessions(events: Events, count: int) -> tuple[np.ndarray, Questions]:
    """Training positions, and for each of the last sessions what comes after its first three."""
    begin = (SESSIONS - count) * LENGTH
    first = np.arange(begin, len(events), LENGTH)
    return np.arange(begin), Questions(np.arange(len(events)), first, first + 3, first + 4)


def nearest(scorer: OuselScorer, questions: Questions) -> np.ndarray:
    """[B, N] cosines of sessions and items."""
    vectors, table, _ = scorer.vectors(questions)
    return (vectors @ table.T).numpy()


def test_a_planted_sequence_is_learned() -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    scorer = scorer_of()
    scorer.fit(events, train)
    wanted = events.item[questions.order[questions.cut]].tolist()
    lists = scorer.lists(questions, 5, filter_seen=False)
    assert lists.shape == (10, 5) and lists.dtype == np.int32
    assert lists[:, 0].tolist() == wanted
    assert nearest(scorer, questions)[:, :-1].argmax(1).tolist() == wanted
    _, table, known = scorer.vectors(questions)
    assert known.tolist() == [True] * (ITEMS - 1) + [False]
    np.testing.assert_allclose(table.norm(dim=1), 1, rtol=1e-5)


def test_lists_leave_out_what_was_seen_and_what_is_not_asked_for() -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    scorer = scorer_of(epochs=1)
    scorer.fit(events, train)
    seen = [{*events.item[questions.history(at)].tolist()} for at in range(10)]
    for at, row in enumerate(scorer.lists(questions, ITEMS, filter_seen=True).tolist()):
        assert {item for item in row if item >= 0} == {*range(ITEMS)} - seen[at]
    among = np.arange(ITEMS) % 3 == 0
    for row in scorer.lists(questions, ITEMS, filter_seen=False, among=among).tolist():
        assert {item for item in row if item >= 0} == {*np.flatnonzero(among).tolist()}


def test_an_item_that_training_has_not_seen_is_found_by_its_content() -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    like = 4
    title = {f"i{at}": f"word{at}" for at in range(ITEMS)} | {f"i{ITEMS - 1}": f"word{like}"}
    named = Items(title, dict.fromkeys(title, ()), str)
    scorer = scorer_of(described(events, named, small().state), id_dropout=0.3)
    scorer.fit(events, train)
    assert scorer.vectors(questions)[2].all()
    cosines = nearest(scorer, questions)
    asked = events.item[questions.order[questions.cut]] == like
    assert 0 < asked.sum() < len(asked)
    first_two = np.sort(cosines[asked].argsort(1)[:, -2:], axis=1)
    assert (first_two == [like, ITEMS - 1]).all()
    assert (cosines[~asked].argmax(1) != ITEMS - 1).all()


def test_nothing_but_training_events_and_histories_counts_and_a_seed_repeats() -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    later = events.item.copy()
    known = np.concatenate([questions.history(at) for at in range(len(questions))])
    hidden = np.setdiff1d(np.arange(len(events)), np.concatenate([train, known]))
    later[hidden] = 0
    cosines, lists = [], []
    for one in (events, replace(events, item=later)):
        scorer = scorer_of(epochs=1)
        scorer.fit(one, train)
        cosines.append(nearest(scorer, questions))
        lists.append(scorer.lists(questions, 5, filter_seen=False))
    np.testing.assert_array_equal(*cosines)
    np.testing.assert_array_equal(*lists)


@pytest.mark.parametrize("name", ["augment_crop", "augment_mask", "augment_reorder"])
def test_a_planted_sequence_is_learned_from_augmented_windows_too(name: str) -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    scorer = scorer_of(**{name: 0.2}, dropout=0.0, epochs=12)
    scorer.fit(events, train)
    wanted = events.item[questions.order[questions.cut]].tolist()
    assert nearest(scorer, questions)[:, :-1].argmax(1).tolist() == wanted


def test_goals_part_what_one_kind_names_from_what_another_does() -> None:
    # Sessions step on through five places, each an item that is viewed and one that is clicked; a coin decides which.
    coin = np.random.default_rng(0).integers(0, 2, SESSIONS * LENGTH)
    place = (np.arange(SESSIONS)[:, None] * 3 + np.arange(LENGTH)).ravel() % 5
    events = replace(planted(), item=place + 5 * coin, kind=coin, kinds=["view", "click"])
    train, questions = next_of_last_sessions(events, 10)
    scorer = scorer_of(by_kind=True, dropout=0.0)
    scorer.fit(events, train)
    assert scorer.weights is not None
    history = scorer._history(questions)
    expected = (history.row[:, -1] + 1) % 5
    _, table, _ = scorer.vectors(questions)
    with torch.no_grad():
        for goal in (0, 1):
            best = (scorer.weights.model.sequence(table, history, goal)[:, -1] @ table[:10].T).argmax(1)
            assert best.tolist() == (expected + 5 * goal).tolist()
    both = np.sort(nearest(scorer, questions)[:, :10].argsort(1)[:, -2:])  # without a goal, either
    assert both.tolist() == np.stack([expected, expected + 5], 1).tolist()


def test_a_model_that_was_trained_before_is_judged_as_it_is() -> None:
    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    trained = scorer_of(epochs=2)
    trained.fit(events, train)
    again = OuselScorer(small(), by_session=True, weights=trained.weights)
    again.fit(events, train)
    assert again.weights is trained.weights
    np.testing.assert_array_equal(
        again.lists(questions, 5, filter_seen=False), trained.lists(questions, 5, filter_seen=False)
    )


def test_killed_it_goes_on_from_its_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    class KilledAtTheSecondSave(Checkpoint):
        saves = 0

        def save(self, state: object) -> None:
            super().save(state)  # type: ignore[arg-type]
            self.saves += 1
            if self.saves == 2:
                raise RuntimeError("killed")

    events = planted()
    train, questions = next_of_last_sessions(events, 10)
    settings = {"epochs": 4, "id_dropout": 0.2}
    whole = scorer_of(**settings)
    whole.fit(events, train)
    with pytest.raises(RuntimeError, match="killed"):
        scorer_of(checkpoint=KilledAtTheSecondSave(tmp_path / "run.pt", "run"), **settings).fit(events, train)
    rest = scorer_of(checkpoint=Checkpoint(tmp_path / "run.pt", "run"), **settings)
    rest.fit(events, train)
    np.testing.assert_array_equal(nearest(rest, questions), nearest(whole, questions))


@given(visits=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), max_size=12))
def test_sessions_are_counted_from_one_for_each_owner(visits: list[tuple[int, int, int]]) -> None:
    want, on, last, count, time = [], [], {}, {}, 0
    times = []
    for who, session, minutes in visits:
        time += minutes
        times.append(time)
        goes_on = who in last and last[who][0] == session and time - last[who][1] <= 2
        if not goes_on:
            count[who] = count.get(who, 0) + 1
        last[who] = session, time
        want.append(count[who])
        on.append(goes_on)
    columns = zip(*visits, strict=True) if visits else ((), (), ())
    who, session, _ = (np.array(column, np.int64) for column in columns)
    ordinal, goes_on = ordinals(who, session, np.array(times, np.int64), gap_ms=2)
    assert ordinal.tolist() == want and goes_on.tolist() == on
