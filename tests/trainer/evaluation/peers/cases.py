"""What all peers are tested with: small logs, questions after every event, and logs that differ where none may look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.trainer.evaluation.logs import Row, log_of
from trainer.data.log import Events, Ints, Questions, Scorer

ITEMS = 6


@st.composite
def logs(draw: st.DrawFn, sessions: int = 6, most: int = 40) -> tuple[Events, Ints]:
    """A log where users have two sessions each, and the positions to train on."""
    pick = st.tuples(st.integers(0, sessions - 1), st.integers(0, ITEMS - 1), st.integers(0, 3))
    size = draw(st.integers(2, most))  # drawn by itself, as lists are mostly short
    drawn = draw(st.lists(pick, min_size=size, max_size=size))
    time = np.cumsum([gap for _, _, gap in drawn])
    rows: list[Row] = [
        (session // 2, session, item, float(at)) for (session, item, _), at in zip(drawn, time, strict=True)
    ]
    log = log_of(rows, items=ITEMS, timed=draw(st.booleans()))
    return log, np.arange(draw(st.integers(1, size)))


def after_every_event(log: Events) -> Questions:
    """One question after each event, with the history of its user; the target is not to be read."""
    order = np.argsort(log.user, kind="stable")
    first = np.searchsorted(log.user[order], log.user[order])
    cut = np.arange(1, len(order) + 1)
    return Questions(order, first, cut, cut + 1)


def sessions_of(log: Events, known: Ints, window: int) -> dict[int, list[int]]:
    """The last positions of each session, in log order, by session; the session with the latest end comes last."""
    found: dict[int, list[int]] = {}
    for at in known.tolist():
        found.setdefault(int(log.session[at]), []).append(at)
    by_end = sorted(found.items(), key=lambda each: each[1][-1])
    return {session: positions[-window:] for session, positions in by_end}


def with_rest(score: dict[int, float], log: Events, known: Ints) -> list[float]:
    """Scores of all items, where those without one are below 0 by popularity."""
    count = [int(np.sum(log.item[known] == item)) for item in range(ITEMS)]
    return [score.get(item, 0.0) or count[item] / (max(count) + 1) - 1 for item in range(ITEMS)]


def of_histories(histories: Sequence[Sequence[int]]) -> Questions:
    """Questions with these positions as histories."""
    end = np.cumsum([len(history) for history in histories])
    order = np.array([at for history in histories for at in history], np.int64)
    return Questions(order, np.append(0, end[:-1]), end, end + 1)


def check_reads_nothing_else(scorer: Scorer, other: Scorer) -> None:
    """Both get the same training, observations and histories, of logs that differ in everything else."""
    rng = np.random.default_rng(5)
    rows = [
        (int(who) // 2, int(who), int(rng.integers(ITEMS)), 10.0 * at)
        for at, who in enumerate(rng.integers(8, size=60))
    ]
    log = log_of(rows, items=ITEMS)
    train, later = np.arange(30), np.arange(30, 35)
    histories = [[2, 7, 40], [41], [33, 42]]
    read = np.isin(np.arange(len(rows)), [*train, *later, 40, 41, 42])
    hidden = np.flatnonzero(~read)

    def shuffled(column: NDArray[np.int64]) -> NDArray[np.int64]:
        column = column.copy()
        column[hidden] = (column[hidden] + 1 + rng.integers(3, size=len(hidden))) % (column.max() + 1)
        return column

    time = log.time.copy()
    time[hidden] += 1e6
    changed = replace(
        log, user=shuffled(log.user), session=shuffled(log.session), item=shuffled(log.item), time=time,
        value=np.where(read, log.value, 9).astype(np.float32), test=~read,
    )  # fmt: skip
    scores = []
    for each, events in ((scorer, log), (other, changed)):
        each.fit(events, train)
        each.observe(later)
        scores.append(each.score(of_histories(histories)))
    assert scores[0].shape == (3, ITEMS)
    assert scores[0].dtype == np.float32
    np.testing.assert_array_equal(scores[0], scores[1])
