"""What is wrong with one value: in words for people, and by the name of its field for programs."""

from __future__ import annotations


class Problem(str):
    """Why a rule is broken: the field, what it must be, and what it was.

    Attributes:
        field: the name that the text begins with, by which a program finds the value.
    """

    field: str

    def __new__(cls, field: str, rule: str) -> Problem:
        made = super().__new__(cls, f"{field} {rule}")
        made.field = field
        return made

    def with_more(self, more: str) -> Problem:
        """The same with `more` behind it."""
        return Problem(self.field, self.removeprefix(f"{self.field} ") + more)
