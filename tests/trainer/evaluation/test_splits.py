"""The protocols against plain loops, and leaks planted by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.evaluation.logs import Row, log_of, rows
from trainer.data.log import Events, Questions, Split
from trainer.evaluation.cold import held_out
from trainer.evaluation.splits import check_no_leak, hold_out_items, leave_one_out, prequential, sessions, successive

Asked = list[tuple[list[int], list[int]]]  # history and targets of each question
PROTOCOLS: list[Callable[[Events], Split]] = [
    leave_one_out,
    lambda events: leave_one_out(events, validation=True),
    sessions,
    lambda events: sessions(events, validation=True),
    lambda events: successive(events, quantile=0.5),
    lambda events: prequential(events, share=0.5),
    lambda events: successive(events, quantile=0.7, validation=True),
    lambda events: prequential(events, share=0.3, validation=True),
]


def asked(split: Split) -> Asked:
    questions = split.questions
    return [(questions.history(at).tolist(), questions.targets(at).tolist()) for at in range(len(questions))]


def with_test(log: list[Row]) -> Events:
    """Every third session says test."""
    return log_of(log, test=[row[1] % 3 == 0 for row in log])


def boundary_of(log: list[Row], quantile: float) -> int:
    boundary = min(round(quantile * len(log)), len(log) - 1)
    while boundary and log[boundary - 1][3] == log[boundary][3]:
        boundary -= 1
    return boundary


@given(log=rows(), validation=st.booleans())
def test_leave_one_out_asks_for_the_last_event_of_users_with_three(log: list[Row], validation: bool) -> None:
    train, want = set(range(len(log))), []
    for user in range(4):
        mine = [at for at, row in enumerate(log) if row[0] == user]
        if len(mine) >= 3:
            train -= set(mine[-2:])
            mine = mine[:-1] if validation else mine
            want.append((mine[:-1], mine[-1:]))
    split = leave_one_out(log_of(log), validation=validation)
    assert split.train.tolist() == sorted(train)
    assert asked(split) == sorted(want, key=lambda question: question[1])
    assert split.filter_seen


def test_users_with_one_or_two_events_are_only_trained_on() -> None:
    split = leave_one_out(log_of([(0, 0, 0, 0), (1, 1, 1, 1), (1, 1, 2, 2)]))
    assert split.train.tolist() == [0, 1, 2]
    assert asked(split) == []
    check_no_leak(log_of([(0, 0, 0, 0), (1, 1, 1, 1), (1, 1, 2, 2)]), split)


@given(log=rows())
def test_sessions_ask_for_each_event_but_the_first_of_test_sessions(log: list[Row]) -> None:
    want = []
    for at, row in enumerate(log):
        before = [other for other in range(at) if log[other][1] == row[1]]
        if row[1] % 3 == 0 and before:
            want.append((before, [at]))
    split = sessions(with_test(log))
    assert split.train.tolist() == [at for at, row in enumerate(log) if row[1] % 3]
    assert asked(split) == want
    assert not split.filter_seen


def test_validation_on_sessions_takes_the_tenth_that_ended_last_out_of_training() -> None:
    # Session 3 begins early and ends last; session 20 is of the file's own test part.
    log = [(at, at, 0, float(at)) for at in range(20)] + [(3, 3, 1, 30.0), (7, 7, 2, 31.0), (20, 20, 0, 40.0)]
    split = sessions(log_of(log, test=[row[1] == 20 for row in log]), validation=True)
    assert split.train.tolist() == [at for at in range(20) if at not in (3, 7)]
    assert asked(split) == [([3], [20]), ([7], [21])]


def test_sessions_need_a_split_and_one_side_for_each() -> None:
    log: list[Row] = [(0, 0, 0, 0), (0, 0, 1, 1)]
    with pytest.raises(ValueError, match="needs a column split"):
        sessions(log_of(log))
    with pytest.raises(ValueError, match="got train and test in 's0'"):
        sessions(log_of(log, test=[False, True]))
    with pytest.raises(ValueError, match="at least 2 training sessions, got 1"):
        sessions(log_of(log, test=[False, False]), validation=True)


@given(log=rows(), quantile=st.sampled_from([0.1, 0.5, 0.9]), timed=st.booleans())
def test_successive_asks_for_all_that_comes_after_the_quantile(log: list[Row], quantile: float, timed: bool) -> None:
    expect_questions_after(log, quantile, timed, lambda: successive(log_of(log, timed=timed), quantile=quantile))


@given(log=rows(), timed=st.booleans())
def test_prequential_asks_for_the_baskets_of_the_last_share(log: list[Row], timed: bool) -> None:
    expect_questions_after(log, 0.75, True, lambda: prequential(log_of(log, timed=timed), share=0.25))


def expect_questions_after(log: list[Row], quantile: float, baskets: bool, build: Callable[[], Split]) -> None:
    boundary = boundary_of(log, quantile)
    if not boundary:
        with pytest.raises(ValueError, match="training must have an event, got none"):
            build()
        return
    want: Asked = []
    open_basket: dict[int, tuple[int, float, list[int]]] = {}  # by user: session, time, targets so far
    for at, (user, session, _, time) in enumerate(log):
        if baskets and user in open_basket and open_basket[user][:2] == (session, time):
            open_basket[user][2].append(at)
            continue
        targets = [at]
        open_basket[user] = (session, time, targets)
        history = [other for other in range(at) if log[other][0] == user]
        if at >= boundary and history:
            want.append((history, targets))
    split = build()
    assert split.train.tolist() == list(range(boundary))
    assert asked(split) == want
    assert not split.filter_seen


def test_events_of_equal_time_do_not_straddle_the_split() -> None:
    log: list[Row] = [(0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 2, 1), (0, 0, 3, 1), (0, 0, 4, 2)]
    split = successive(log_of(log), quantile=0.6)
    assert split.train.tolist() == [0]
    assert asked(split) == [([0], [1, 2, 3]), ([0, 1, 2, 3], [4])]


def test_validation_asks_the_same_of_what_would_be_trained_on() -> None:
    log = [(at % 3, at % 3, at % 5, float(at)) for at in range(60)]
    events = log_of(log)
    for protocol in (successive, prequential):
        whole, part = protocol(events), protocol(events, validation=True)
        before = protocol(log_of(log[: len(whole.train)]))
        assert part.train.tolist() == before.train.tolist()
        assert asked(part) == asked(before)
        assert part.digest != whole.digest


def test_a_mere_order_has_no_baskets_in_successive() -> None:
    log: list[Row] = [(0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 2, 1)]
    assert asked(successive(log_of(log, timed=False), quantile=0.5)) == [([0], [1]), ([0, 1], [2])]


def test_questions_are_in_the_log_order_of_their_first_targets_and_most_spaces_them_evenly() -> None:
    log = [(at % 7, at % 7, 0, float(at)) for at in range(70)]
    events = log_of(log)
    targets = [question[1][0] for question in asked(prequential(events, share=0.5))]
    assert targets == list(range(35, 70))
    assert [question[1][0] for question in asked(prequential(events, share=0.5, most=5))] == [35, 42, 49, 56, 63]
    assert asked(prequential(events, share=0.5, most=99)) == asked(prequential(events, share=0.5))
    with pytest.raises(ValueError, match="most must be >= 1, got 0"):
        prequential(events, most=0)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, float("nan")])
def test_a_quantile_leaves_something_on_both_sides(quantile: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and below 1"):
        successive(log_of([(0, 0, 0, 0), (0, 0, 1, 1)]), quantile=quantile)


@given(log=rows(), permuted=st.permutations(range(6)))
def test_the_digest_depends_on_ids_and_not_on_numbers(log: list[Row], permuted: list[int]) -> None:
    events = with_test(log)
    to = np.array(permuted)
    ids = [""] * 6
    for at, new in enumerate(permuted):
        ids[new] = events.items[at]
    renumbered = replace(events, item=to[events.item], items=ids)
    changed = replace(events, items=["other", *events.items[1:]])
    for build in PROTOCOLS:
        split = built(build, events)
        if split is None:
            continue
        assert build(renumbered).digest == build(events).digest == split.digest
        positions = [*split.train, *(at for _, targets in asked(split) for at in targets)]
        assert (build(changed).digest == split.digest) == (0 not in events.item[positions])


def test_the_digest_tells_protocols_and_parameters_apart() -> None:
    events = log_of([(at % 2, at % 2, 0, float(at)) for at in range(20)])
    splits = [
        leave_one_out(events),
        leave_one_out(events, validation=True),
        prequential(events),
        successive(events),
        successive(events, quantile=0.8),
        successive(events, most=100),
        successive(replace(events, time=events.time + 1)),
    ]
    assert len({split.digest for split in splits}) == len(splits)


@given(log=rows())
def test_no_protocol_leaks(log: list[Row]) -> None:
    events = with_test(log)
    for build in PROTOCOLS:
        split = built(build, events)
        if split is None:
            continue
        check_no_leak(events, split)
        asked_about = {at for _, targets in asked(split) for at in targets}
        assert not asked_about & set(split.train.tolist())
        for history, targets in asked(split):
            assert max(history) < min(targets)
        if split.protocol in ("successive", "prequential"):
            assert all(log[at][3] > max(log[seen][3] for seen in split.train) for at in asked_about)


@given(log=rows(), share=st.sampled_from([0.3, 0.6]))
def test_held_out_items_are_not_trained_on_and_only_cold_targets_are_asked(log: list[Row], share: float) -> None:
    events = with_test(log)
    held = held_out(events.items, share)
    for build in PROTOCOLS:
        split = built(build, events)
        if split is None:
            continue
        train = [at for at in split.train.tolist() if not held[log[at][2]]]
        if not train:
            with pytest.raises(ValueError, match="cold share must leave something to train on"):
                hold_out_items(events, split, share=share)
            continue
        warm = {log[at][2] for at in train}
        cold = hold_out_items(events, split, share=share)
        check_no_leak(events, cold)
        assert cold.train.tolist() == train
        assert asked(cold) == [one for one in asked(split) if any(log[at][2] not in warm for at in one[1])]
        assert (cold.protocol, cold.filter_seen) == (split.protocol, split.filter_seen)


def test_most_counts_the_questions_about_cold_items() -> None:
    log = [(at % 7, at % 7, at % 6, float(at)) for at in range(140)]
    events = log_of(log)
    split = prequential(events, share=0.5)
    every, few = (hold_out_items(events, split, share=0.5, most=most) for most in (None, 4))
    assert len(every.questions) > 8 and len(few.questions) == 4
    assert asked(few)[0] == asked(every)[0] and few.digest != every.digest != split.digest


def built(build: Callable[[Events], Split], events: Events) -> Split | None:
    """None where a small log has nothing to learn from, which is refused."""
    try:
        return build(events)
    except ValueError as error:
        assert re.search("training must have an event|at least 2 training sessions", str(error))
        return None


LOG = log_of(
    [(at % 3, at % 3 + 3 * (at // 24), at % 6, float(at // 6)) for at in range(48)], test=[at >= 24 for at in range(48)]
)


@pytest.mark.parametrize("build", PROTOCOLS)
def test_planted_leaks_are_found(build: Callable[[Events], Split]) -> None:
    split = build(LOG)
    check_no_leak(LOG, split)
    questions, last = split.questions, len(split.questions) - 1
    target = questions.order[questions.cut[last]]

    def leaks(match: str, changed: Questions | None = None, **fields: np.ndarray) -> None:
        tampered = replace(split, questions=changed or questions, **fields)
        with pytest.raises(ValueError, match=match):
            check_no_leak(LOG, tampered)

    leaks("at least one target", replace(questions, cut=questions.end))
    leaks("at least one target", replace(questions, cut=questions.end + 1))
    leaks("must begin in the log", replace(questions, first=questions.first - questions.first.max() - 1))
    leaks("must end in the log", replace(questions, end=questions.end + len(LOG)))
    log_order = Questions(np.arange(len(LOG)), target[None] - 1, target[None], target[None] + 1)
    leaks("of one user or session", log_order)
    swapped = questions.order.copy()  # the first target takes the place of the newest event of the history
    swapped[[questions.cut[last], questions.cut[last] - 1]] = swapped[[questions.cut[last] - 1, questions.cut[last]]]
    leaks("must lie before the targets", replace(questions, order=swapped))
    leaks("training must", train=np.sort(np.append(split.train, target)))


@pytest.mark.parametrize("build", [PROTOCOLS[4], PROTOCOLS[5]])
def test_a_history_that_holds_a_part_of_the_basket_is_found(build: Callable[[Events], Split]) -> None:
    split = build(LOG)
    assert (split.questions.end - split.questions.cut).tolist() == [2] * 12
    tampered = replace(split, questions=replace(split.questions, cut=split.questions.cut + 1))
    with pytest.raises(ValueError, match="nothing of the basket"):
        check_no_leak(LOG, tampered)


def test_training_on_another_user_after_the_split_is_found() -> None:
    split = successive(LOG, quantile=0.5)
    tampered = replace(split, questions=split.questions.select(np.array([0])), train=np.append(split.train, 47))
    with pytest.raises(ValueError, match="must end before the first question"):
        check_no_leak(LOG, tampered)
