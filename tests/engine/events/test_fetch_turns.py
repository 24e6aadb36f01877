from __future__ import annotations

from kafka import TopicPartition

from engine.events.fetch_turns import FetchTurns

ALL = [TopicPartition("t", number) for number in range(3)]


def test_all_are_asked_for_at_once_while_no_answer_is_too_long() -> None:
    turns = FetchTurns()
    for _ in range(5):
        assert turns.choose(ALL, 3, 0) == ALL
        turns.ask(ALL)


def test_after_a_long_answer_each_is_asked_for_alone_and_then_all_again() -> None:
    turns = FetchTurns()
    turns.ask(turns.choose(ALL, 3, 0))
    asked = []
    for _ in range(3):
        chosen = turns.choose(ALL, 3, 1)
        turns.ask(chosen)
        asked.append(chosen)
    assert sorted(asked) == [[partition] for partition in ALL]
    assert turns.choose(ALL, 3, 1) == ALL


def test_whoever_was_not_asked_for_longest_comes_next_while_answers_are_too_long() -> None:
    turns = FetchTurns()
    asked = []
    for fetch in range(9):
        # What came of the one before waits to be returned.
        free = [partition for partition in ALL if [partition] != asked[-1:]]
        chosen = turns.choose(free, 3, fetch + 1)
        turns.ask(chosen)
        asked += chosen
    assert all(asked.count(partition) == 3 for partition in ALL)


def test_a_choice_that_is_never_asked_for_costs_no_turn() -> None:
    turns = FetchTurns()
    for _ in range(10):
        assert turns.choose(ALL, 3, 1) == ALL[:1]
