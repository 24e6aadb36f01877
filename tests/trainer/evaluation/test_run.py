"""What a scorer is shown while it is judged, and how two are put side by side."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.trainer.evaluation.logs import log_of
from trainer.data.log import Events, Questions
from trainer.evaluation import run, splits


class Watched:
    """Likes one item, and notes all that it is shown."""

    def __init__(self, name: str, favourite: int) -> None:
        self.name = name
        self.favourite = favourite
        self.known = np.zeros(0, np.int64)
        self.calls: list[tuple[np.ndarray, Questions]] = []

    def fit(self, events: Events, train: np.ndarray) -> None:
        self.known, self.items = train, len(events.items)

    def observe(self, positions: np.ndarray) -> None:
        self.known = np.concatenate([self.known, positions])

    def score(self, questions: Questions) -> np.ndarray:
        self.calls.append((self.known, questions))
        scores = np.zeros((len(questions), self.items), np.float32)
        scores[:, self.favourite] = 1
        return scores


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SPAN", 3)


LOG = log_of([(at % 3, at % 3, at % 5, float(at)) for at in range(40)])


@pytest.mark.usefixtures("few_at_once")
def test_where_the_log_goes_on_a_scorer_observes_all_that_lies_before_what_it_is_asked_and_no_more() -> None:
    split = splits.successive(LOG, quantile=0.5)
    scorer = Watched("w", 0)
    run.judge(scorer, LOG, split, [2])
    assert len(scorer.calls) == -(-len(split.questions) // 3) > 2
    for known, questions in scorer.calls:
        assert known.tolist() == list(range(questions.order[questions.cut[0]]))


@pytest.mark.usefixtures("few_at_once")
def test_questions_far_apart_are_not_asked_in_one_go_so_that_the_state_is_as_new_as_when_it_serves() -> None:
    split = splits.successive(LOG, quantile=0.5, most=5)
    scorer = Watched("w", 0)
    run.judge(scorer, LOG, split, [2])
    assert len(scorer.calls) == len(split.questions) == 5
    for known, questions in scorer.calls:
        assert known.tolist() == list(range(questions.order[questions.cut[0]]))


@pytest.mark.usefixtures("few_at_once")
def test_where_it_does_not_a_scorer_knows_what_it_was_trained_on() -> None:
    split = splits.leave_one_out(LOG)
    scorer = Watched("w", 0)
    run.judge(scorer, LOG, split, [2])
    assert all(known.tolist() == split.train.tolist() for known, _ in scorer.calls)


@pytest.mark.usefixtures("few_at_once")
def test_a_scorer_that_says_that_it_stands_still_is_shown_nothing_and_asked_all_in_one_go() -> None:
    split = splits.successive(LOG, quantile=0.5)
    scorer = Watched("w", 0)
    scorer.live = False  # type: ignore[attr-defined]
    run.judge(scorer, LOG, split, [2], live=True)
    assert [(known.tolist(), len(questions)) for known, questions in scorer.calls] == [
        (split.train.tolist(), len(split.questions))
    ]


def test_every_question_is_judged_once_and_seen_items_are_filtered_where_the_protocol_says_so() -> None:
    log = log_of([(0, 0, 1, 0.0), (0, 0, 2, 1.0), (0, 0, 2, 2.0), (1, 1, 0, 3.0), (1, 1, 3, 4.0), (1, 1, 4, 5.0)])
    for favourite, want in ((2, [0.0, 0.0]), (4, [0.0, 1.0])):
        judged = run.judge(Watched("w", favourite), log, splits.leave_one_out(log), [1])
        assert judged.judge.values()["hr@1"].tolist() == want
        assert judged.figures()["questions"] == 2


def test_the_ratio_is_to_the_best_peer_of_each_figure() -> None:
    split = splits.successive(LOG, quantile=0.5)
    judged = {str(at): run.judge(Watched(str(at), at), LOG, split, [1]) for at in range(3)}
    hits = {name: one.judge.values()["hr@1"].mean() for name, one in judged.items()}
    found = run.ratios(judged["0"], {name: judged[name] for name in "12"}, [1])["hr@1"]
    assert found["best_peer"] == max("12", key=hits.__getitem__)
    assert found["ratio"] == pytest.approx(hits["0"] / hits[found["best_peer"]])
    assert found["interval"][0] <= found["ratio"] <= found["interval"][1]
    assert run.ratios(judged["0"], {}, [1]) == {}


def test_among_cold_items_the_warm_ones_are_no_answers_and_no_targets() -> None:
    # Items 0 and 1 are warm, 4 and 5 cold. User 0 is asked about the basket 4 and 1, then about 5.
    log = log_of([(0, 0, 0, 0.0), (0, 0, 1, 1.0), (0, 0, 4, 8.0), (0, 0, 1, 8.0), (0, 0, 5, 9.0)])
    split = splits.successive(log, quantile=0.4)

    class Ordered(Watched):
        def score(self, questions: Questions) -> np.ndarray:
            return np.tile(np.array([9, 8, 0, 0, 7, 6], np.float32), (len(questions), 1))

    figures = run.judge(Ordered("w", 0), log, split, [2, 3], among_cold=True).figures()
    # Of all items the lists begin 0, 1, 4; of the cold ones 4, 5.
    assert figures["recall@2_cold"] == 0 and figures["recall@3_cold"] == 0.5
    assert figures["recall@2_among_cold"] == 1 and figures["mrr@2_among_cold"] == 0.75
    # Without 4, which the history of the second holds, 5 comes first there.
    assert figures["recall@2_among_cold_new"] == 1 and figures["mrr@2_among_cold_new"] == 1
    assert figures["recall@2_cold_new"] == 0 and figures["recall@3_cold_new"] == 0.5
    assert "recall@2_among_cold" not in run.judge(Ordered("w", 0), log, split, [2]).figures()


def test_ratios_are_of_the_parts_asked_for_and_to_peers_that_earned_something() -> None:
    split = splits.successive(LOG, quantile=0.05)  # items 2, 3 and 4 come up later
    judged = {str(at): run.judge(Watched(str(at), at), LOG, split, [1], among_cold=True) for at in (0, 3, 4)}
    peers = {name: judged[name] for name in ("0", "4")}
    found = run.ratios(judged["3"], peers, [1], ["cold", run.AMONG_COLD])
    assert {name for name in found if "hr" in name} == {"hr@1_cold", "hr@1_among_cold"}
    assert found["hr@1_cold"]["best_peer"] == found["hr@1_among_cold"]["best_peer"] == "4"
    assert run.ratios(judged["3"], {"0": judged["0"]}, [1], ["cold"]) == {}


def test_memory_is_what_the_process_had_held_when_the_fit_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = SimpleNamespace(ru_maxrss=0)

    class Hungry(Watched):
        def fit(self, events: Events, train: np.ndarray) -> None:
            super().fit(events, train)
            peak.ru_maxrss = 2_000_000  # KiB, as Linux counts

        def score(self, questions: Questions) -> np.ndarray:
            peak.ru_maxrss = 3_000_000
            return super().score(questions)

    monkeypatch.setattr(run.resource, "getrusage", lambda who: peak)
    monkeypatch.setattr(run.sys, "platform", "linux")
    figures = run.judge(Hungry("w", 0), LOG, splits.leave_one_out(LOG), [1]).figures()
    assert figures["peak_gb"] == pytest.approx(2.05, abs=0.005)


def test_among_new_items_nobody_wins_by_never_repeating() -> None:
    """Both know the answer; one of them puts the history before it."""
    log = log_of([(0, 0, 1, 0.0), (0, 0, 2, 1.0), (1, 1, 1, 2.0), (1, 1, 2, 3.0)], test=[False, False, True, True])
    split = splits.sessions(log)

    class Repeats(Watched):
        def score(self, questions: Questions) -> np.ndarray:
            scores = super().score(questions)
            for at in range(len(questions)):
                scores[at, log.item[questions.history(at)]] = 2
            return scores

    values = [run.judge(scorer, log, split, [2]) for scorer in (Repeats("repeats", 2), Watched("plain", 2))]
    assert [one.values("new")["mrr@2"].tolist() for one in values] == [[0.5], [1.0]]
    assert [one.values(run.AMONG_NEW)["mrr@2"].tolist() for one in values] == [[1.0], [1.0]]
    assert values[0].figures()["mrr@2_among_new"] == 1.0
    assert run.AMONG_NEW not in run.judge(Watched("w", 0), LOG, splits.leave_one_out(LOG), [2]).among
