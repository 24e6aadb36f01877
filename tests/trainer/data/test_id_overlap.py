"""Ids of events and of the catalog that were meant to be the same."""

from __future__ import annotations

import pytest

from trainer.data.id_overlap import overlap_problem


@pytest.mark.parametrize(
    ("named", "catalog", "problem"),
    [
        (
            ["3.0", "4.0", "5.0"],
            ["3", "4"],
            "the 3 item ids of the events, such as '3.0', '4.0', and the 2 of the catalog, such as '3', '4', have none"
            " in common: the model learns nothing of what the catalog says; 2 of them differ from an id of the catalog"
            " in their form alone: write both alike",
        ),
        (
            ["a", "b", "c"],
            ["x", "y", "z"],
            "the 3 item ids of the events, such as 'a', 'b', and the 3 of the catalog, such as 'x', 'y', have none in"
            " common: the model learns nothing of what the catalog says",
        ),
        (
            ["x", "4.0", "5.0", "6.0", "elsewhere"],
            ["x", "4", "5", "6"],
            "4 of the 5 item ids of the events are not among the 4 of the catalog; 3 of them differ from an id of the"
            " catalog in their form alone: write both alike, such as '4.0', '5.0' in the events and '4', '5' in the"
            " catalog",
        ),
        (["a", "b", "new"], ["a", "b", "c"], None),
        (["a"], [], None),
        ([], ["a"], None),
    ],
)
def test_ids_that_do_not_meet_are_told_with_counts_and_examples(
    named: list[str], catalog: list[str], problem: str | None
) -> None:
    assert overlap_problem(named, catalog) == problem


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("3", "3.0"), ("3", "003"), ("3", " 3"), ("ABC", "abc"), ("1082185", "1.082185e6"), ("12", "'12'"),
        ("-1", "-1.0"),
    ],
)  # fmt: skip
def test_forms_of_one_id_are_told_from_other_ids(there: str, here: str) -> None:
    for named, catalog in ((there, here), (here, there)):
        problem = overlap_problem([named, "same"], [catalog, "same"])
        assert problem is not None and f"such as {named!r} in the events and {catalog!r} in the catalog" in problem


@pytest.mark.parametrize(
    ("there", "here"), [("3", "30"), ("3.5", "3"), ("a-1", "a1"), ("1e99999", "1e9999"), ("", "0")]
)
def test_other_ids_stay_other_ids(there: str, here: str) -> None:
    assert overlap_problem([there, "same"], [here, "same"]) is None
