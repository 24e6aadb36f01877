"""Whether the item ids of events and those of the catalog are the same ids.

A file that went through a spreadsheet or a table of floats has "3.0" where the other has "3". Training works on such
files, and learns nothing of what the catalog says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from decimal import Decimal
from itertools import islice

_EXAMPLES = 2
_number = re.compile(r"[+-]?\d{1,30}(\.\d{0,30})?(e[+-]?\d{1,2})?").fullmatch


def overlap_problem(named: Collection[str], catalog: Collection[str]) -> str | None:
    """What is wrong where events and catalog were meant to have the same ids; None where nothing seems to be.

    Args:
        named: the distinct item ids of the events.
        catalog: the item ids of the catalog; without any, nothing is wrong.
    """
    if not named or not catalog:
        return None
    known = set(catalog)
    foreign = [item_id for item_id in named if item_id not in known]
    if not foreign:
        return None
    by_form: dict[str, str] = {}
    for item_id in catalog:
        by_form.setdefault(_form(item_id), item_id)
    pairs = [(item_id, by_form[form]) for item_id in foreign if (form := _form(item_id)) in by_form]
    theirs, ours = zip(*pairs, strict=True) if pairs else (named, catalog)
    remedy = f"{len(pairs)} of them differ from an id of the catalog in their form alone: write both alike"
    if len(foreign) == len(named):
        return (
            f"the {len(named)} item ids of the events, such as {_examples(theirs)}, and the {len(catalog)} of the"
            f" catalog, such as {_examples(ours)}, have none in common: the model learns nothing of what the catalog"
            f" says{f'; {remedy}' if pairs else ''}"
        )
    if pairs:
        return (
            f"{len(foreign)} of the {len(named)} item ids of the events are not among the {len(catalog)} of the"
            f" catalog; {remedy}, such as {_examples(theirs)} in the events and {_examples(ours)} in the catalog"
        )
    return None


def _examples(ids: Iterable[str]) -> str:
    return ", ".join(repr(item_id) for item_id in islice(ids, _EXAMPLES))


def _form(item_id: str) -> str:
    """The same for ids that differ by blanks, by capitals, or by how a whole number is written."""
    if item_id.isdigit() and item_id[0] != "0":
        return item_id  # as most ids are: the rest would cost seconds where a catalog has a million of them
    text = item_id.strip().strip("\"'").casefold()
    if _number(text):
        number = Decimal(text)
        if number == number.to_integral_value():
            return str(int(number))
    return text
